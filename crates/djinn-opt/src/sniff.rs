//! What a file seems to be, for those who name another file than they mean.

use djinn::diag::{Diagnostic, Result, input};
use djinn::plan_data::{self, Plan};

/// Bytes that are looked at.
const HEAD: usize = 4096;

/// Reads a plan in JSON or binary form.
///
/// # Errors
/// `plan.format` says what else the file seems to be; otherwise those of the readers.
pub(crate) fn plan(bytes: Vec<u8>) -> Result<Plan> {
    if bytes.starts_with(plan_data::codec::MAGIC) {
        return plan_data::from_binary(&bytes);
    }
    if let Some((what, advice)) = seems(&bytes) {
        return Err(no_plan(&format!("this is no plan: it seems to be {what}"), advice));
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.trim_start().starts_with('{') => plan_data::from_json(&text),
        _ => Err(no_plan("this is no plan, neither in JSON nor in binary form", MAKE)),
    }
}

const MAKE: &str = "djinn-opt MODEL --device NAME --emit plan -o FILE makes a plan";
const MODEL: &str = "djinn-opt FILE --device NAME --emit plan -o PLAN makes a plan of a model";
const BUNDLE: &str = "name the folder of the bundle";
const JSON: &str = "--emit plan writes the form that can be read back";

fn no_plan(message: &str, advice: &str) -> Box<Diagnostic> {
    input("plan.format", message).help(advice)
}

/// What bytes that are no plan seem to be, and what to do; nothing for what may be a plan, or cannot be told.
fn seems(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let head = &bytes[..bytes.len().min(HEAD)];
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start();
    let known: [(bool, &str, &str); 12] = [
        (bytes.is_empty(), "empty", MAKE),
        (head.starts_with(b"PK"), "a zip archive, such as a .pt2 model or .npz arrays", MODEL),
        (
            head.starts_with(&[0x1f, 0x8b]),
            "compressed with gzip",
            "unpack it first; a compressed model is read as such",
        ),
        (head.starts_with(b"DJNSRG") || text.contains("djinn-srg"), "a semantically rich graph", MODEL),
        (text.starts_with('{') && text.contains("\"djinn-bundle\""), "the manifest of a bundle", BUNDLE),
        (text.starts_with('{') && text.contains("\"traceEvents\""), "a trace", JSON),
        (text.starts_with("<!doctype html"), "an HTML report", JSON),
        (text.starts_with("plan ") && text.contains("\ndevice "), "a plan in text form", JSON),
        (text.starts_with("\"builtin.module\"") || text.starts_with("//"), "IR text", MODEL),
        (is_safetensors(head), "the weights of a bundle (safetensors)", BUNDLE),
        // An ONNX model begins with the field `ir_version`: number 1, a varint.
        (head.first() == Some(&0x08) && head.get(1).is_some_and(|v| *v < 0x80), "an ONNX model", MODEL),
        (head.starts_with(b"\x89PNG") || head.starts_with(b"\x7fELF"), "an image or a program", MAKE),
    ];
    known.into_iter().find(|k| k.0).map(|(_, what, advice)| (what, advice))
}

/// The length of a header in 8 bytes, then the header, which is JSON.
fn is_safetensors(head: &[u8]) -> bool {
    let length = head.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
    length.is_some_and(|l| l < 1 << 32) && head.get(8) == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_plans_are_told_apart() {
        for (bytes, what) in [
            (&b""[..], "empty"),
            (b"PK\x03\x04", "zip archive"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x08\x0a\x12\x07pytorch", "an ONNX model"),
            (b"{\n  \"format\": \"djinn-bundle\", \"version\": 1}", "manifest of a bundle"),
            (b"{\"traceEvents\":[]}", "a trace"),
            (b"<!doctype html>\n<html>", "HTML report"),
            (b"plan 2 of 00\ndevice d0 \"a\"", "plan in text form"),
            (b"\"builtin.module\"() ({", "IR text"),
            (b"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors"),
            (b"hello", "neither in JSON nor in binary form"),
            (b"\xff\xfe", "neither in JSON nor in binary form"),
        ] {
            let e = plan(bytes.to_vec()).expect_err(what);
            assert!(e.code == "plan.format" && e.message.contains(what) && e.help.is_some(), "{what}: {e}");
        }
        assert_eq!(
            plan(b"{}".to_vec()).expect_err("no version").message,
            "this is no plan in JSON: it has no `version`"
        );
        assert!(plan(b"DJINNPLN".to_vec()).expect_err("cut off").message.contains("cut off"));
    }
}

//! A bound on how deep a text nests, because MLIR's parser recurses and has no bound of its own.

use djinn_diag::{Result, input};

/// Brackets that may be open at once. MLIR's parser takes a few kilobytes of stack for each.
const DEPTH_LIMIT: usize = 128;

/// Refuses text that nests too deep, or holds a NUL, which MLIR's parser takes for the end.
pub(crate) fn check(text: &str) -> Result<()> {
    let bytes = text.as_bytes();
    let (mut depth, mut line, mut at) = (0usize, 1, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\n' => line += 1,
            0 => return Err(input("mlir.nul", "the module holds a NUL").at(format!("line {line}"))),
            b'"' => at = end_of_string(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'/') => at = end_of_comment(bytes, at),
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            // An arrow closes nothing.
            b'>' if at > 0 && bytes[at - 1] != b'-' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_LIMIT {
            let message = format!("more than {DEPTH_LIMIT} brackets are open at once");
            return Err(input("mlir.depth", message).at(format!("line {line}")));
        }
        at += 1;
    }
    Ok(())
}

/// The last byte of the string that begins at `at`; a string ends with its line at the latest.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'"' => return end,
            b'\n' | 0 => return end - 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// The last byte before the end of the line or a NUL.
fn end_of_comment(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| matches!(byte, b'\n' | 0))
        .map_or(bytes.len(), |length| at + length - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_comments_and_arrows_do_not_count() {
        let deep = "(".repeat(DEPTH_LIMIT + 1);
        for text in [format!("\"{deep}\""), format!("// {deep}\n"), "() -> () ".repeat(1000)] {
            assert!(check(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn deep_text_is_refused_wherever_it_stands() {
        let deep = "(".repeat(DEPTH_LIMIT + 1);
        for text in
            [deep.clone(), format!("\"open\n{deep}"), format!("\"a\\\"\"{deep}"), deep.replace('(', "(->")]
        {
            assert_eq!(check(&text).expect_err("too deep").code, "mlir.depth", "{text}");
        }
        assert_eq!(check("\n// \0").expect_err("a NUL").place, ["line 2"]);
    }
}

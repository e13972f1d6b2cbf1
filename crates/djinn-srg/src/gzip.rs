//! Bounded unpacking of gzipped model files, shared by the file frontends.

use djinn_diag::{Result, input, unsupported};
use std::io::Read;

/// Unpacks a gzip file of any number of members to at most `limit` bytes; memory grows with what has been unpacked.
///
/// # Errors
/// Damaged files (`input`), and files that unpack to more than `limit` bytes or than memory holds (`unsupported`), each
/// with `code`.
pub fn unpack(code: &str, bytes: &[u8], limit: usize) -> Result<Vec<u8>> {
    let help = "unpack it to disk with gunzip and name the result, which is then mapped into memory";
    let mut reader = flate2::read::MultiGzDecoder::new(bytes);
    let (mut out, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let n = reader.read(&mut chunk).map_err(|e| {
            input(code, format!("not a valid gzip file: {e}")).help("copy or pack the file again")
        })?;
        if n == 0 {
            return Ok(out);
        }
        if out.len() + n > limit {
            let message = format!("the gzip file unpacks to more than {limit} bytes");
            return Err(unsupported(code, message).help(help));
        }
        out.try_reserve(n).map_err(|_| {
            unsupported(code, "there is not enough memory to unpack the gzip file").help(help)
        })?;
        out.extend_from_slice(&chunk[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn gzip_bombs_are_refused() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(&vec![0; 1 << 20]).expect("written");
        let bomb = gz.finish().expect("finished");
        assert!(bomb.len() < 1 << 12);
        let e = unpack("x.gzip", &bomb, (1 << 20) - 1).expect_err("refused");
        assert_eq!(e.code, "x.gzip");
        assert!(e.message.contains("more than 1048575 bytes") && e.help.is_some(), "{e}");
        assert_eq!(unpack("x.gzip", &bomb, 1 << 20).expect("unpacked").len(), 1 << 20);
    }
}

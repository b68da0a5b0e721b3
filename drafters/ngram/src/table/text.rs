//! Documents out of a text file, read in pieces: what is tokenised for a table, at no more than a few megabytes at a
//! time. It knows no tokenizer.
//!
//! A document ends at a line that says `<|endoftext|>` and at the end of the file. An empty line ends none: across it a
//! text goes on. A document of more than [`PIECE`] bytes is cut there after a line, and a longer line anywhere between
//! two characters; the pieces are documents of their own, so each cut hides one boundary from matches.

use std::io::{self, BufRead, Read};

/// About how long a document may be, in bytes.
pub const PIECE: usize = 1 << 20;

/// The documents of a text. Text that is no UTF-8 is an error, which says where.
#[derive(Debug)]
pub struct Documents<R> {
    text: R,
    /// Bytes of a character that a cut has split.
    rest: Vec<u8>,
    /// How many bytes were read.
    read: u64,
}

impl<R: BufRead> Documents<R> {
    /// The documents of `text`.
    pub fn new(text: R) -> Documents<R> {
        Documents { text, rest: Vec::new(), read: 0 }
    }
}

impl<R: BufRead> Iterator for Documents<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<io::Result<String>> {
        let mut document = std::mem::take(&mut self.rest);
        let mut begin = self.read - document.len() as u64;
        loop {
            let start = document.len();
            if start == 0 {
                begin = self.read;
            }
            let n = match self.text.by_ref().take(PIECE as u64).read_until(b'\n', &mut document) {
                Ok(n) => n,
                Err(error) => return Some(Err(error)),
            };
            self.read += n as u64;
            let over = if document[start..].trim_ascii() == END {
                document.truncate(start);
                true
            } else if document.len() >= PIECE {
                self.rest = document.split_off(document.len() - split_character(&document));
                true
            } else {
                n == 0
            };
            if over && !document.is_empty() {
                return Some(String::from_utf8(document).map_err(|error| {
                    let at = begin + error.utf8_error().valid_up_to() as u64;
                    let what = format!("it is not UTF-8: byte {at} begins no character; convert it with iconv");
                    io::Error::new(io::ErrorKind::InvalidData, what)
                }));
            }
            if n == 0 {
                return None;
            }
        }
    }
}

/// How many bytes at the end begin a character and do not end it.
fn split_character(text: &[u8]) -> usize {
    let tail = &text[text.len().saturating_sub(3)..];
    let Some(back) = tail.iter().rev().position(|&byte| byte & 0xc0 != 0x80) else { return 0 };
    let needed = match tail[tail.len() - 1 - back] {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    if back + 1 < needed {
        back + 1
    } else {
        0
    }
}

const END: &[u8] = b"<|endoftext|>";

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &[u8]) -> Vec<String> {
        Documents::new(text).map(|document| document.unwrap()).collect()
    }

    #[test]
    fn a_line_of_its_own_ends_a_document() {
        assert_eq!(documents(b"a\n\nb\n<|endoftext|>\nc\n"), ["a\n\nb\n", "c\n"]);
        assert_eq!(documents(b"<|endoftext|>\n<|endoftext|>\r\nc <|endoftext|>"), ["c <|endoftext|>"]);
        assert!(documents(b"").is_empty());
        assert!(documents(b"<|endoftext|>").is_empty());
    }

    #[test]
    fn long_documents_are_cut_after_a_line() {
        let line = format!("{}\n", "é".repeat(300));
        let text = line.repeat(5_000);
        let pieces = documents(text.as_bytes());
        assert_eq!(pieces.concat(), text);
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() < 2 * PIECE && piece.ends_with('\n')));
    }

    #[test]
    fn a_longer_line_is_cut_between_characters() {
        for text in ["aé".repeat(PIECE), "€".repeat(PIECE), "😀".repeat(PIECE)] {
            let pieces = documents(text.as_bytes());
            assert_eq!(pieces.concat(), text);
            assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() < 2 * PIECE));
        }
    }

    #[test]
    fn what_is_no_utf_8_is_refused_with_its_place() {
        let complaint = |text: &[u8]| {
            let failed = Documents::new(text).find_map(Result::err);
            failed.map_or(String::new(), |error| error.to_string())
        };
        assert_eq!(complaint("é\n<|endoftext|>\n€".as_bytes()), "");
        let long = [&"aé".repeat(PIECE).into_bytes()[..], b"\xff"].concat();
        for (text, at) in [
            (&b"\xff\xfea\0"[..], 0),
            (b"a\xffb\xc3", 1),
            (b"ab\n\xc3", 3),
            (b"a\n<|endoftext|>\nb\xff", 17),
            (b"<|endoftext|>\n<|endoftext|>\n\xff", 28),
            (&long, 3 * PIECE),
        ] {
            let said = complaint(text);
            assert!(said.contains(&format!("byte {at} begins no character")), "{said}");
        }
    }
}

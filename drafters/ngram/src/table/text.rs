//! Documents out of a text file, read in pieces: what is tokenised for a table, at no more than a few megabytes at a
//! time. It knows no tokenizer.
//!
//! A document ends at a line that says `<|endoftext|>` and at the end of the file. An empty line ends none: across it a
//! text goes on. A document of more than [`PIECE`] bytes is cut there after a line, and a longer line anywhere between
//! two characters; the pieces are documents of their own, so each cut hides one boundary from matches.

use std::io::{self, BufRead, Read};

/// About how long a document may be, in bytes.
pub const PIECE: usize = 1 << 20;

/// The documents of a text. What is no UTF-8 is replaced by U+FFFD.
#[derive(Debug)]
pub struct Documents<R> {
    text: R,
    /// Bytes of a character that a cut has split.
    rest: Vec<u8>,
}

impl<R: BufRead> Documents<R> {
    /// The documents of `text`.
    pub fn new(text: R) -> Documents<R> {
        Documents { text, rest: Vec::new() }
    }
}

impl<R: BufRead> Iterator for Documents<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<io::Result<String>> {
        let mut document = std::mem::take(&mut self.rest);
        loop {
            let start = document.len();
            let n = match self.text.by_ref().take(PIECE as u64).read_until(b'\n', &mut document) {
                Ok(n) => n,
                Err(error) => return Some(Err(error)),
            };
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
                return Some(Ok(String::from_utf8_lossy(&document).into_owned()));
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
        assert_eq!(documents(b"a\xffb\xc3"), ["a\u{fffd}b\u{fffd}"]);
    }
}

//! From tokens to text that may be printed: whole UTF-8 characters only, and nothing that could
//! still turn out to be the beginning of a stop string.

use foretoken_drafter::Token;

/// What the text layer needs to know of a tokenizer.
pub trait Vocabulary {
    /// The bytes that a token stands for; a character may be spread over several tokens.
    fn piece(&self, token: Token) -> Vec<u8>;

    /// Whether the token ends the generation.
    fn is_end(&self, token: Token) -> bool;
}

/// Text that grows token by token.
pub struct TextStream {
    stops: Vec<String>,
    /// Decoded so far, possibly a stop string's beginning at its end.
    text: String,
    /// Bytes of an unfinished character.
    pending: Vec<u8>,
    taken: usize,
    stopped: Option<usize>,
}

impl TextStream {
    /// Empty text that ends at any of `stops`; empty stop strings are ignored.
    pub fn new(stops: &[String]) -> TextStream {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        TextStream { stops, text: String::new(), pending: Vec::new(), taken: 0, stopped: None }
    }

    /// Append a token's bytes. Bytes that are no UTF-8 become U+FFFD.
    pub fn push(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
        let from = self.text.len();
        let unfinished = decode(&self.pending, &mut self.text);
        self.pending.drain(..self.pending.len() - unfinished);
        self.look_for_stop(from);
    }

    /// The stop string that ended the text, if one did.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|i| self.stops[i].as_str())
    }

    /// What may be printed and was not taken yet.
    pub fn take(&mut self) -> &str {
        let end = self.text.len() - self.held_back();
        let start = std::mem::replace(&mut self.taken, end);
        &self.text[start..end]
    }

    /// Nothing more comes: what is left to print.
    pub fn finish(&mut self) -> &str {
        if self.stopped.is_none() {
            let pending = std::mem::take(&mut self.pending);
            self.text.push_str(&String::from_utf8_lossy(&pending));
        }
        let start = std::mem::replace(&mut self.taken, self.text.len());
        &self.text[start..]
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Cut the text at the earliest stop string that ends after `from`.
    fn look_for_stop(&mut self, from: usize) {
        let found = self.stops.iter().enumerate().filter_map(|(i, stop)| {
            let mut begin = from.saturating_sub(stop.len() - 1).max(self.taken);
            while !self.text.is_char_boundary(begin) {
                begin += 1;
            }
            self.text[begin..].find(stop).map(|at| (begin + at, i))
        });
        if let Some((at, i)) = found.min() {
            self.text.truncate(at);
            self.pending.clear();
            self.stopped = Some(i);
        }
    }

    /// Length of the longest end of the text that begins a stop string.
    fn held_back(&self) -> usize {
        if self.stopped.is_some() {
            return 0;
        }
        let tail = &self.text.as_bytes()[self.taken..];
        let begins = |stop: &String, n: usize| tail.ends_with(&stop.as_bytes()[..n]) && stop.is_char_boundary(n);
        let longest = |stop: &String| (1..stop.len().min(tail.len() + 1)).rev().find(|&n| begins(stop, n));
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

/// Append what is decodable to `text`; returns how many bytes at the end are an unfinished character.
fn decode(bytes: &[u8], text: &mut String) -> usize {
    let mut unfinished = 0;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        let may_go_on = chunks.peek().is_none() && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
        if may_go_on {
            unfinished = invalid.len();
        } else if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    unfinished
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut s = TextStream::new(&stops);
        let mut printed = Vec::new();
        for piece in pieces {
            s.push(piece);
            if s.stopped().is_some() {
                break;
            }
            printed.push(s.take().to_owned());
        }
        let stopped = s.stopped().map(str::to_owned);
        printed.push(s.finish().to_owned());
        (printed, s.into_text(), stopped)
    }

    #[test]
    fn characters_are_never_split() {
        let (printed, text, _) = stream(&[], &[b"a\xe2", b"\x82", b"\xacb"]);
        assert_eq!(printed, ["a", "", "€b", ""]);
        assert_eq!(text, "a€b");
    }

    #[test]
    fn broken_bytes_become_replacement_characters() {
        assert_eq!(stream(&[], &[b"a\xff", b"b\xe2"]).1, "a\u{fffd}b\u{fffd}");
        assert_eq!(stream(&[], &[b"\xe2\x82", b"x"]).1, "\u{fffd}x");
    }

    #[test]
    fn stop_strings_are_held_back_and_cut() {
        let (printed, text, stopped) = stream(&["\n\nUser:"], &[b"hi\n", b"\nUs", b"er: more"]);
        assert_eq!(printed, ["hi", "", ""]);
        assert_eq!((text.as_str(), stopped.as_deref()), ("hi", Some("\n\nUser:")));
        let (printed, text, stopped) = stream(&["\n\nUser:"], &[b"hi\n", b"\nUs", b"ual"]);
        assert_eq!(printed, ["hi", "", "\n\nUsual", ""]);
        assert_eq!((text.as_str(), stopped), ("hi\n\nUsual", None));
    }

    #[test]
    fn the_earliest_stop_wins_and_empty_ones_are_ignored() {
        let (_, text, stopped) = stream(&["", "c", "b"], &[b"abc"]);
        assert_eq!((text.as_str(), stopped.as_deref()), ("a", Some("b")));
    }
}

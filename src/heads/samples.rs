//! What heads are trained on: the target's hidden state at every token of a text, and the text.
//!
//! States take 2 · n_embd bytes a token. They are written to a temporary file as they come and mapped when complete, so
//! memory is whatever the system's page cache spares, however long the text.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use foretoken_drafter::Token;
use half::f16;
use tempfile::NamedTempFile;

use super::train::TrainError;
use crate::gguf;
use crate::map::{self, Mapping};

/// Samples on their way to disk.
pub struct Collecting {
    out: BufWriter<NamedTempFile>,
    n_embd: usize,
    tokens: Vec<Token>,
    windows: Vec<Window>,
}

/// Texts with their hidden states.
pub struct Samples {
    n_embd: usize,
    tokens: Vec<Token>,
    windows: Vec<Window>,
    states: Mapping,
    /// Gone when this is dropped.
    _file: NamedTempFile,
}

/// A piece of a document that the target read at one go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    document: usize,
    tokens: Range<usize>,
}

impl Collecting {
    /// Collect states of width `n_embd`, in a temporary file in the folder of `beside`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(n_embd: usize, beside: &Path) -> Result<Collecting, TrainError> {
        let file = gguf::beside(&beside.with_extension("states"))?;
        Ok(Collecting { out: BufWriter::with_capacity(1 << 20, file), n_embd, tokens: Vec::new(), windows: Vec::new() })
    }

    /// Add a piece of a document (the `document`-th), and the hidden state at each of its tokens, one after the other.
    ///
    /// # Errors
    /// The states are not `n_embd` numbers for each token, or the disk is full.
    pub fn push(&mut self, document: usize, tokens: &[Token], states: &[f32]) -> Result<(), TrainError> {
        if states.len() != tokens.len() * self.n_embd {
            let (n, width) = (tokens.len(), self.n_embd);
            return Err(TrainError::Input(format!("{} numbers are not {n} states of width {width}", states.len())));
        }
        for &x in states {
            let half = f16::from_f32(x);
            if !half.is_finite() {
                return Err(TrainError::Input(format!("a hidden state holds {x}, which 16 bits cannot")));
            }
            self.out.write_all(&half.to_le_bytes())?;
        }
        let start = self.tokens.len();
        self.tokens.extend(tokens);
        self.windows.push(Window { document, tokens: start..self.tokens.len() });
        Ok(())
    }

    /// Tokens so far.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// All of them.
    ///
    /// # Errors
    /// There are none, or the file cannot be completed.
    pub fn finish(self) -> Result<Samples, TrainError> {
        if self.tokens.is_empty() || self.n_embd == 0 {
            return Err(TrainError::TooShort { usable: 0, needs: LEAST });
        }
        let file = self.out.into_inner().map_err(|e| e.into_error())?;
        let states = map::open(file.path())?;
        Ok(Samples { n_embd: self.n_embd, tokens: self.tokens, windows: self.windows, states, _file: file })
    }
}

impl Samples {
    /// Width of a hidden state.
    pub fn n_embd(&self) -> usize {
        self.n_embd
    }

    /// Every token, window after window.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Put the state at token `i` at the end of `out`.
    pub(super) fn state(&self, i: usize, out: &mut Vec<f32>) {
        let width = 2 * self.n_embd;
        let bytes = self.states.get(i * width..(i + 1) * width).unwrap_or_default();
        out.extend(bytes.chunks_exact(2).map(|x| f16::from_le_bytes([x[0], x[1]]).to_f32()));
    }

    /// Tokens to train on and tokens to judge by, each with at least `ahead` tokens after it in its window. Whole
    /// documents are held out, chosen by `order` (a shuffle of 0..n); of a single document, its last windows.
    ///
    /// # Errors
    /// The text is too short for both.
    pub(super) fn split(
        &self,
        ahead: usize,
        share: f32,
        order: impl FnOnce(usize) -> Vec<usize>,
    ) -> Result<(Vec<u32>, Vec<u32>), TrainError> {
        let usable =
            |window: &Window| window.tokens.start..window.tokens.end.saturating_sub(ahead).max(window.tokens.start);
        let documents = self.windows.last().map_or(0, |window| window.document + 1);
        let mut held = vec![false; self.windows.len()];
        let wanted = (self.tokens.len() as f32 * share).ceil() as usize;
        let mut count = 0;
        if documents > 1 {
            let order = order(documents);
            for &document in order.iter().take(documents - 1) {
                if count >= wanted {
                    break;
                }
                for (held, window) in held.iter_mut().zip(&self.windows).filter(|(_, w)| w.document == document) {
                    *held = true;
                    count += usable(window).len();
                }
            }
        } else {
            for (held, window) in held.iter_mut().zip(&self.windows).skip(1).rev() {
                if count >= wanted {
                    break;
                }
                *held = true;
                count += usable(window).len();
            }
        }
        let rows = |wanted: bool| {
            let windows = self.windows.iter().zip(&held).filter(|&(_, &held)| held == wanted);
            windows.flat_map(|(window, _)| usable(window)).map(|i| i as u32).collect::<Vec<u32>>()
        };
        let (train, held_out) = (rows(false), rows(true));
        match () {
            () if self.tokens.len() > u32::MAX as usize => {
                Err(TrainError::Input("the text has more than 4 billion tokens; train on a part of it".into()))
            }
            () if train.len() < LEAST => Err(TrainError::TooShort { usable: train.len(), needs: LEAST }),
            () if held_out.is_empty() => Err(TrainError::Input(
                "the text is too short to hold out a part of it; give more, or part it by lines of `<|endoftext|>`"
                    .into(),
            )),
            () => Ok((train, held_out)),
        }
    }

    /// Differs where the texts do.
    pub(super) fn fingerprint(&self) -> u64 {
        let windows = self.windows.iter().flat_map(|w| [w.document as u64, w.tokens.end as u64]);
        let tokens = self.tokens.iter().map(|&token| u64::from(token));
        super::train::hash(windows.chain(tokens))
    }
}

/// Fewer tokens teach nothing.
const LEAST: usize = 64;

/// The documents of a text file: parted by lines that are `<|endoftext|>`, or the whole. Empty ones are left out.
pub fn documents(text: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim() == SEPARATOR {
            documents.push(&text[start..at]);
            start = at + line.len();
        }
        at += line.len();
    }
    documents.push(&text[start..]);
    documents.retain(|document| !document.trim().is_empty());
    documents
}

const SEPARATOR: &str = "<|endoftext|>";

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(windows: &[(usize, usize)]) -> Samples {
        let folder = tempfile::tempdir().unwrap();
        let mut collecting = Collecting::new(2, &folder.path().join("h.gguf")).unwrap();
        for &(document, n) in windows {
            let states: Vec<f32> = (0..2 * n).map(|i| i as f32).collect();
            collecting.push(document, &vec![3; n], &states).unwrap();
        }
        collecting.finish().unwrap()
    }

    #[test]
    fn documents_are_parted_by_their_own_lines() {
        assert_eq!(documents("a\n<|endoftext|>\nb <|endoftext|> c\n"), ["a\n", "b <|endoftext|> c\n"]);
        assert_eq!(documents("<|endoftext|>\r\n\n<|endoftext|>\nzwölf"), ["zwölf"]);
        assert_eq!(documents("one"), ["one"]);
        assert!(documents(" \n").is_empty());
    }

    #[test]
    fn whole_documents_are_held_out() {
        let samples = samples(&[(0, 100), (0, 100), (1, 100), (2, 100), (3, 2)]);
        let (train, held_out) = samples.split(5, 0.1, |n| (0..n).rev().collect()).unwrap();
        assert_eq!(held_out, (300..395).collect::<Vec<u32>>(), "document 3 is too short to count");
        assert_eq!(train.len(), 3 * 95);
        let (_, more) = samples.split(5, 0.5, |n| (0..n).collect()).unwrap();
        assert_eq!(more.len(), 3 * 95, "both windows of document 0, then document 1");
    }

    #[test]
    fn of_one_document_the_end_is_held_out() {
        let one = samples(&[(0, 100), (0, 100), (0, 50)]);
        let (train, held_out) = one.split(5, 0.1, |_| Vec::new()).unwrap();
        assert_eq!((train.len(), held_out), (190, (200..245).collect::<Vec<u32>>()));
        let short = samples(&[(0, 500)]).split(5, 0.1, |_| Vec::new()).unwrap_err().to_string();
        assert!(short.contains("too short to hold out a part"), "{short}");
        let shorter = samples(&[(0, 50), (0, 50)]).split(5, 0.1, |_| Vec::new()).unwrap_err().to_string();
        assert!(shorter.contains("too short to train on: 45 tokens"), "{shorter}");
    }

    #[test]
    fn states_are_kept_in_order() {
        let samples = samples(&[(0, 3), (1, 2)]);
        let mut row = Vec::new();
        samples.state(1, &mut row);
        samples.state(4, &mut row);
        assert_eq!(row, [2.0, 3.0, 2.0, 3.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut collecting = Collecting::new(2, &folder.path().join("h.gguf")).unwrap();
        assert!(collecting.push(0, &[1, 2], &[0.0; 3]).is_err());
        assert!(collecting.push(0, &[1], &[0.0, 1e30]).is_err());
        assert!(collecting.push(0, &[1], &[0.0, f32::NAN]).is_err());
    }
}

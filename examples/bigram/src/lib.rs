//! Drafter `bigram`: after each token comes what followed it the last time.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::collections::HashMap;

use foretoken_drafter::{Commit, DraftError, DraftRequest, Drafter, Host, NodeId, SeqId, Token, TokenTree};
use serde::Deserialize;

/// The `[drafter]` table of `kind = "bigram"`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// How likely a guess is taken to be right, from 0 to 1.
    #[serde(default = "half")]
    belief: f32,
}

fn half() -> f32 {
    0.5
}

/// Build the drafter from the text of its table.
///
/// # Errors
/// A key is unknown or its value out of range.
pub fn build(settings: &str, _host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let Settings { belief } = toml::from_str(settings).map_err(|e| DraftError::settings(e.message()))?;
    if !(0.0..=1.0).contains(&belief) {
        return Err(DraftError::settings(format!("belief = {belief} is out of range; it goes from 0 to 1")));
    }
    Ok(Box::new(Bigram { belief, next: HashMap::new() }))
}

/// Guesses a chain from a table of pairs.
struct Bigram {
    belief: f32,
    next: HashMap<(SeqId, Token), Token>,
}

impl Drafter for Bigram {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        let mut node = NodeId::ROOT;
        while let Some(&token) = self.next.get(&(request.seq, tree.token(node))) {
            match tree.add(node, token, self.belief) {
                Some(child) => node = child,
                None => break, // the budget is spent
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        let first_new = commit.context.len() - commit.n_new;
        for pair in commit.context[first_new.saturating_sub(1)..].windows(2) {
            self.next.insert((commit.seq, pair[0]), pair[1]);
        }
        Ok(())
    }

    fn end(&mut self, seq: SeqId) {
        self.next.retain(|&(text, _), _| text != seq);
    }
}

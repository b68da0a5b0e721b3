//! From the earlier occurrences of a suffix to a belief for each token that may come next.
//!
//! Counts alone do not tell how far to trust a match: one occurrence of two tokens says little, one of
//! twenty says nearly all, and how much differs from text to text. So [`Trust`] learns from the text
//! itself how often the latest longest match of each length went on rightly, and [`predict`] smooths
//! the counts of each length with what shorter matches say, to just that degree. Both are pure
//! arithmetic: they know neither the index nor the tree.

use foretoken_drafter::Token;

/// How often a match of some length is right about the next token: a smoothed ratio of counts,
/// which forgets slowly.
#[derive(Clone, Debug)]
pub struct Trust {
    hits: [f32; CLASSES],
    trials: [f32; CLASSES],
}

impl Default for Trust {
    /// What is believed before anything is counted, worth [`PRIOR_TRIALS`] trials.
    fn default() -> Trust {
        Trust { hits: PRIOR.map(|p| p * PRIOR_TRIALS), trials: [PRIOR_TRIALS; CLASSES] }
    }
}

impl Trust {
    /// The latest occurrence of the longest match, `len` tokens long, was right about the next token,
    /// or was not.
    pub fn record(&mut self, len: u32, right: bool) {
        let class = class(len);
        self.trials[class] += 1.0;
        self.hits[class] += f32::from(u8::from(right));
        if self.trials[class] > MEMORY {
            self.trials[class] *= 0.5;
            self.hits[class] *= 0.5;
        }
    }

    /// Estimated probability that the longest match, if `len` tokens long, is right about the next one.
    pub fn of(&self, len: u32) -> f32 {
        let class = class(len);
        self.hits[class] / self.trials[class]
    }
}

/// An earlier occurrence, and what followed it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vote {
    /// Where it was found: the context or an archive.
    pub source: u32,
    /// The length of the match.
    pub len: u32,
    /// The token that followed.
    pub token: Token,
}

/// Beliefs for the next token, best first, written to `beliefs`: probabilities that sum to less than
/// one. `votes` come source by source, of each the longest first; among equals the earlier in `votes`
/// wins. `trust` tells how far a source is trusted at a length.
///
/// From the shortest class of lengths to the longest, with c(t) of the n votes of a source at least that
/// long for t: P(t) ← (c(t) + κ·P(t)) / (n + κ), starting from 0, where κ = 2·(1 − trust) / trust. Of
/// several sources, the class that is trusted least goes first. Without the
/// 2 a lone vote would be believed as its length is trusted; but trust is counted over all matches,
/// the lone and the often confirmed, and the tree takes the likeliest of many estimates. On 13 texts
/// (Rust, Python, prose, dialogues, sums; split into words) the survivals of a tree summed to 1.4 to
/// 1.6 times what was accepted; with the 2, to 1.0 times on average, 0.7 to 1.25 by text.
pub fn predict(votes: &[Vote], trust: impl Fn(u32, u32) -> f32, beliefs: &mut Vec<(Token, f32)>) {
    beliefs.clear();
    let mut slots = [0u8; MAX_VOTES];
    // Of each source, where its votes start and how many are still to be counted.
    let mut sources = [(0usize, 0usize); MAX_SOURCES];
    let mut n_sources = 0;
    let votes = &votes[..votes.len().min(MAX_VOTES)];
    for (i, (slot, vote)) in slots.iter_mut().zip(votes).enumerate() {
        if i == 0 || votes[i - 1].source != vote.source {
            if n_sources == MAX_SOURCES {
                break;
            }
            sources[n_sources] = (i, 0);
            n_sources += 1;
        }
        sources[n_sources - 1].1 += 1;
        *slot = beliefs.iter().position(|&(t, _)| t == vote.token).unwrap_or_else(|| {
            beliefs.push((vote.token, 0.0));
            beliefs.len() - 1
        }) as u8;
    }
    let shortest = |&(start, left): &(usize, usize)| votes[start + left - 1];
    loop {
        let waiting = sources[..n_sources].iter_mut().rev().filter(|(_, left)| *left > 0);
        let trusted = waiting.map(|source| (trust(shortest(source).source, shortest(source).len), source));
        let Some((trust, source)) = trusted.min_by(|a, b| a.0.total_cmp(&b.0)) else { break };
        let (vote, (start, left)) = (shortest(source), source);
        // Never quite 0: no number of votes is a proof.
        let escape = (CAUTION * (1.0 / trust.max(1e-6) - 1.0)).max(0.01);
        let scale = 1.0 / (*left as f32 + escape);
        beliefs.iter_mut().for_each(|(_, belief)| *belief *= escape * scale);
        slots[*start..*start + *left].iter().for_each(|&slot| beliefs[usize::from(slot)].1 += scale);
        while *left > 0 && class(votes[*start + *left - 1].len) == class(vote.len) {
            *left -= 1;
        }
    }
    // Stable: the token of the longest match goes first among equals.
    beliefs.sort_by(|a, b| b.1.total_cmp(&a.1));
}

/// Most votes that are counted.
pub const MAX_VOTES: usize = 160;

/// Most sources that are told apart.
pub const MAX_SOURCES: usize = 10;
const _: () = assert!(MAX_VOTES <= u8::MAX as usize);

/// Lengths of match that are told apart: 1, 2, 3, 4, 5, 6–7, 8–11, 12–19, 20 and more.
const CLASSES: usize = 9;

fn class(len: u32) -> usize {
    match len {
        0..=5 => len.max(1) as usize - 1,
        6..=7 => 5,
        8..=11 => 6,
        12..=19 => 7,
        _ => 8,
    }
}

const PRIOR: [f32; CLASSES] = [0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9];
const PRIOR_TRIALS: f32 = 8.0;
const MEMORY: f32 = 512.0;
const CAUTION: f32 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn beliefs(votes: &[(u32, Token)]) -> Vec<(Token, f32)> {
        let votes: Vec<Vote> = votes.iter().map(|&(len, token)| Vote { source: 0, len, token }).collect();
        let mut beliefs = Vec::new();
        predict(&votes, |_, len| Trust::default().of(len), &mut beliefs);
        beliefs
    }

    #[test]
    fn a_lone_vote_is_believed_the_more_the_longer_it_is() {
        let lone = |len| beliefs(&[(len, 7)])[0].1;
        assert!((1..40).all(|len| lone(len) < Trust::default().of(len) && lone(len) <= lone(len + 1)));
        assert!(lone(1) < 0.1 && lone(20) > 0.8);
    }

    #[test]
    fn more_votes_and_longer_matches_are_believed_more() {
        let ranked = beliefs(&[(2, 5), (2, 6), (2, 5), (2, 7), (2, 6), (2, 5)]);
        assert_eq!(ranked.iter().map(|b| b.0).collect::<Vec<_>>(), [5, 6, 7]);
        assert!(beliefs(&[(2, 5), (2, 5)])[0].1 > beliefs(&[(2, 5)])[0].1);
        let ranked = beliefs(&[(9, 1), (2, 3), (2, 3)]);
        assert_eq!(ranked[0].0, 1);
        assert!(ranked.iter().map(|b| b.1).sum::<f32>() < 1.0);
    }

    #[test]
    fn the_source_that_is_trusted_more_is_believed_more() {
        let votes = [(0, 3, 5), (1, 3, 6), (1, 3, 6)].map(|(source, len, token)| Vote { source, len, token });
        let ranked = |trusts: [f32; 2]| {
            let mut beliefs = Vec::new();
            predict(&votes, |source, _| trusts[source as usize], &mut beliefs);
            assert!(beliefs.iter().map(|b| b.1).sum::<f32>() < 1.0);
            beliefs
        };
        assert_eq!(ranked([0.8, 0.1])[0].0, 5);
        assert_eq!(ranked([0.1, 0.8])[0].0, 6);
        let agreed = [(0, 3, 5), (1, 3, 5)].map(|(source, len, token)| Vote { source, len, token });
        let mut beliefs = Vec::new();
        predict(&agreed, |_, _| 0.5, &mut beliefs);
        assert!(beliefs[0].1 > super::tests::beliefs(&[(3, 5)])[0].1, "two sources that agree say more than one");
    }

    #[test]
    fn more_sources_or_votes_than_fit_are_passed_over() {
        let votes: Vec<Vote> = (0..300).map(|i| Vote { source: i / 7, len: 2, token: i }).collect();
        let mut beliefs = Vec::new();
        predict(&votes, |_, _| 0.5, &mut beliefs);
        assert_eq!(beliefs.len(), 7 * MAX_SOURCES);
    }

    #[test]
    fn trust_follows_what_happens() {
        let mut trust = Trust::default();
        (0..10_000).for_each(|i| trust.record(4, i % 10 == 0));
        assert!((trust.of(4) - 0.1).abs() < 0.02);
        assert_eq!(trust.of(3), Trust::default().of(3));
        (0..10_000).for_each(|_| trust.record(4, false));
        assert!(trust.of(4) >= 0.0 && beliefs(&[(4, 1)])[0].1.is_finite());
    }

    #[test]
    fn no_votes_are_no_beliefs() {
        assert!(beliefs(&[]).is_empty());
        assert_eq!(beliefs(&[(3, 1); 100]).len(), 1);
    }
}

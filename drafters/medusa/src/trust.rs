//! How far the heads' own probabilities are to be believed, learnt from what became final.
//!
//! A head is trained alone, and asked about tokens that follow guesses of other heads: it tends to be over-confident,
//! how much differs from head to head, from rank to rank and from text to text. So each rank of each head keeps two
//! sums: how often its guess was right, and how often its own probabilities promised that. Their ratio corrects it.

use foretoken_drafter::Token;

use crate::{Candidate, Candidates};

/// What was promised and what was kept, by head and rank.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    heads: Vec<[Record; RANKS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    hits: f32,
    promised: f32,
    trials: f32,
}

impl Trust {
    /// A head's likeliest tokens with beliefs, best first. Beliefs sum to at most one.
    pub(crate) fn candidates(&self, head: usize, top: &[(Token, f32)]) -> Candidates {
        let candidate = |(rank, &(token, probability)): (usize, &(Token, f32))| {
            let belief = (probability * self.correction(head, rank)).clamp(0.0, MOST);
            Candidate { token, rank, probability, belief }
        };
        let mut candidates: Candidates = top.iter().enumerate().map(candidate).collect();
        let sum: f32 = candidates.iter().map(|c| c.belief).sum();
        if sum > MOST {
            candidates.iter_mut().for_each(|c| c.belief *= MOST / sum);
        }
        // Stable: the head's own order among equals.
        candidates.sort_by(|a, b| b.belief.total_cmp(&a.belief));
        candidates
    }

    /// What became final where `guess` was made, from the first token on. A head is judged only where the tokens before
    /// its own were all guessed, for only there does the tree ask it.
    pub(crate) fn learn(&mut self, guess: &[Candidates], tokens: &[Token]) {
        if self.heads.len() < guess.len() {
            self.heads.resize(guess.len(), [Record::default(); RANKS]);
        }
        for ((records, candidates), &token) in self.heads.iter_mut().zip(guess).zip(tokens) {
            for c in candidates {
                let record = &mut records[c.rank.min(RANKS - 1)];
                record.hits += f32::from(u8::from(c.token == token));
                record.promised += c.probability;
                record.trials += 1.0;
                if record.trials > MEMORY {
                    (record.hits, record.promised, record.trials) =
                        (record.hits * 0.5, record.promised * 0.5, record.trials * 0.5);
                }
            }
            if !candidates.iter().any(|c| c.token == token) {
                return;
            }
        }
    }

    /// Hits per promised hit, drawn towards 1 by [`PRIOR`] promised hits that were kept.
    fn correction(&self, head: usize, rank: usize) -> f32 {
        let record = self.heads.get(head).map_or(Record::default(), |records| records[rank.min(RANKS - 1)]);
        (record.hits + PRIOR) / (record.promised + PRIOR)
    }
}

/// Ranks that are told apart; later ones count as the last.
const RANKS: usize = 16;
/// A choice, not a fit: a rank is distrusted by half after promising this much in vain.
const PRIOR: f32 = 2.0;
/// Trials after which older ones count half.
const MEMORY: f32 = 512.0;
/// No guess is certain.
const MOST: f32 = 0.99;

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: [(Token, f32); 2] = [(1, 0.75), (2, 0.25)];

    fn beliefs(trust: &Trust, head: usize) -> Vec<(Token, f32)> {
        trust.candidates(head, &TOP).iter().map(|c| (c.token, c.belief)).collect()
    }

    #[test]
    fn what_is_not_known_yet_is_believed_as_it_is_said() {
        let [(first, a), (second, b)] = beliefs(&Trust::default(), 0)[..] else { panic!("two candidates") };
        assert_eq!((first, second), (1, 2));
        assert!((a - 0.75).abs() < 0.01 && (b - 0.25).abs() < 0.01, "{a} {b}");
    }

    #[test]
    fn beliefs_become_what_happens() {
        let mut trust = Trust::default();
        // Right 3 times in 10 where 7.5 are promised, and 6 in 10 where 2.5 are.
        for i in 0..10_000u32 {
            let guess = [trust.candidates(0, &TOP)];
            trust.learn(&guess, &[[1, 1, 1, 2, 2, 2, 2, 2, 2, 7][i as usize % 10]]);
        }
        let [(first, a), (second, b)] = beliefs(&trust, 0)[..] else { panic!("two candidates") };
        assert_eq!((first, second), (2, 1), "the better guess comes first");
        assert!((a - 0.6).abs() < 0.03 && (b - 0.3).abs() < 0.03, "{a} {b}");
    }

    #[test]
    fn a_head_is_judged_only_where_it_was_asked() {
        let mut trust = Trust::default();
        let guess = [trust.candidates(0, &TOP), trust.candidates(1, &TOP)];
        trust.learn(&guess, &[7, 1]);
        assert_eq!(trust.correction(1, 0), 1.0, "the token before it was not guessed");
        trust.learn(&guess, &[2, 1]);
        assert!(trust.correction(1, 0) > 1.0);
        trust.learn(&guess, &[]);
    }

    #[test]
    fn beliefs_stay_probabilities() {
        let mut trust = Trust::default();
        for _ in 0..10_000 {
            let guess = [trust.candidates(0, &[(1, 1e-6), (2, f32::MIN_POSITIVE)])];
            trust.learn(&guess, &[1]);
        }
        let sum: f32 = trust.candidates(0, &TOP).iter().map(|c| c.belief).sum();
        assert!(sum <= 1.0 && beliefs(&trust, 0).iter().all(|b| (0.0..=1.0).contains(&b.1)));
    }
}

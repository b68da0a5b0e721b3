//! What the rounds of a run add up to: rates, lengths and where the time went.

use std::time::Duration;

use foretoken_drafter::Token;
use serde::Serialize;

use crate::verify::Ending;

/// One round, as the engine saw it.
#[derive(Clone, Debug)]
pub struct Round {
    /// The tokens that became final: the accepted ones and the recovered or bonus token.
    pub tokens: Vec<Token>,
    /// Nodes that were verified; 0 in a plain round.
    pub drafted: usize,
    /// Length of the tree's longest branch.
    pub depth: usize,
    /// Nodes that were accepted.
    pub accepted: usize,
    /// Where the last token comes from.
    pub ending: Ending,
    /// Time in the drafter.
    pub draft: Duration,
    /// Time in the target's scoring pass.
    pub score: Duration,
    /// Time of the whole round.
    pub total: Duration,
    /// What was expected of it before its nodes were scored, if anything was.
    pub predicted: Option<Prediction>,
    /// The number of threads, if it is chosen from round to round; one that is only being tried does not count.
    pub threads: Option<usize>,
}

/// What a round is expected to bring and to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// Tokens, the recovered or bonus token included.
    pub tokens: f64,
    /// Seconds.
    pub seconds: f64,
}

/// Sums over rounds.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, as far as the caller took them.
    pub generated_tokens: usize,
    /// Rounds, plain ones included.
    pub rounds: usize,
    /// Rounds in which nothing was drafted.
    pub plain_rounds: usize,
    /// Nodes verified.
    pub drafted: usize,
    /// Nodes accepted.
    pub accepted: usize,
    /// Rounds whose tree was at least d deep, for d = 1, 2, …
    offered: Vec<usize>,
    /// Rounds that accepted at least d tokens, for d = 1, 2, …
    reached: Vec<usize>,
    /// Time to bring the models up to date with the prompt.
    pub prefill: Duration,
    /// Time in drafters.
    pub draft: Duration,
    /// Time in the target's scoring passes.
    pub verify: Duration,
    /// Time of all rounds.
    pub decode: Duration,
    /// From the end of the prompt to the first token.
    first: Duration,
    /// Seconds of every round: tokens come in bursts, these are the pauses between them.
    pauses: Vec<f32>,
    /// What was expected of the rounds of which anything was, and what they gave.
    predicted: Prediction,
    realised: Prediction,
}

impl Stats {
    /// Count one more round. Generated tokens are counted by the caller, who may cut a round short.
    pub fn add(&mut self, round: &Round) {
        self.rounds += 1;
        self.plain_rounds += usize::from(round.drafted == 0);
        self.drafted += round.drafted;
        self.accepted += round.accepted;
        count_up_to(&mut self.offered, round.depth);
        count_up_to(&mut self.reached, round.accepted);
        self.draft += round.draft;
        self.verify += round.score;
        self.decode += round.total;
        if self.pauses.is_empty() {
            self.first = round.total;
        }
        self.pauses.push(round.total.as_secs_f32());
        if let Some(predicted) = round.predicted {
            self.predicted += predicted;
            let (tokens, seconds) = (round.tokens.len() as f64, round.total.as_secs_f64());
            self.realised += Prediction { tokens, seconds };
        }
    }

    /// Add the sums of another run.
    pub fn merge(&mut self, other: &Stats) {
        self.prompt_tokens += other.prompt_tokens;
        self.generated_tokens += other.generated_tokens;
        self.rounds += other.rounds;
        self.plain_rounds += other.plain_rounds;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
        add_each(&mut self.offered, &other.offered);
        add_each(&mut self.reached, &other.reached);
        self.prefill += other.prefill;
        self.draft += other.draft;
        self.verify += other.verify;
        self.decode += other.decode;
        self.first += other.first;
        self.pauses.extend_from_slice(&other.pauses);
        self.predicted += other.predicted;
        self.realised += other.realised;
    }

    /// Accepted / drafted; `None` if nothing was drafted.
    pub fn acceptance_rate(&self) -> Option<f64> {
        ratio(self.accepted, self.drafted)
    }

    /// 1 + accepted / rounds: tokens per pass of the target, the recovered or bonus token included.
    pub fn mean_acceptance_length(&self) -> Option<f64> {
        ratio(self.accepted, self.rounds).map(|r| 1.0 + r)
    }

    /// For each depth, the share of rounds that accepted a token there, among those that drafted one.
    pub fn acceptance_by_position(&self) -> Vec<f64> {
        let reached = self.reached.iter().copied().chain(std::iter::repeat(0));
        self.offered.iter().zip(reached).map(|(&offered, reached)| reached as f64 / offered as f64).collect()
    }

    /// Generated tokens per second of decoding, prefill excluded; `None` before the first round.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.decode.as_secs_f64();
        (seconds > 0.0).then(|| self.generated_tokens as f64 / seconds)
    }

    /// Realised / predicted tokens per second, over the rounds that were predicted; `None` if none was.
    pub fn realised_over_predicted(&self) -> Option<f64> {
        let speed = |p: &Prediction| (p.seconds > 0.0).then(|| p.tokens / p.seconds);
        speed(&self.realised).zip(speed(&self.predicted)).map(|(realised, predicted)| realised / predicted)
    }

    /// Seconds from the prompt to the first token, prefill included; of several runs, their sum.
    pub fn time_to_first_token(&self) -> f64 {
        (self.prefill + self.first).as_secs_f64()
    }

    /// The pause between two bursts of tokens that `share` of all pauses do not exceed, in seconds.
    pub fn pause(&self, share: f64) -> Option<f64> {
        let mut pauses = self.pauses.clone();
        pauses.sort_by(f32::total_cmp);
        let last = pauses.len().checked_sub(1)?;
        pauses.get((share * last as f64).round() as usize).map(|&seconds| f64::from(seconds))
    }

    /// Generated tokens per second of prefill and decoding together.
    pub fn tokens_per_wall_second(&self) -> Option<f64> {
        let seconds = (self.prefill + self.decode).as_secs_f64();
        (seconds > 0.0).then(|| self.generated_tokens as f64 / seconds)
    }

    /// Time that neither the drafter nor the target's pass took.
    pub fn other(&self) -> Duration {
        self.decode.saturating_sub(self.draft + self.verify)
    }

    /// The statistics as they are printed by `--json`.
    pub fn summary(&self) -> Summary {
        Summary {
            prompt_tokens: self.prompt_tokens,
            generated_tokens: self.generated_tokens,
            rounds: self.rounds,
            plain_rounds: self.plain_rounds,
            drafted: self.drafted,
            accepted: self.accepted,
            acceptance_rate: self.acceptance_rate(),
            mean_acceptance_length: self.mean_acceptance_length(),
            acceptance_by_position: self.acceptance_by_position(),
            prefill_s: self.prefill.as_secs_f64(),
            decode_s: self.decode.as_secs_f64(),
            draft_s: self.draft.as_secs_f64(),
            verify_s: self.verify.as_secs_f64(),
            other_s: self.other().as_secs_f64(),
            tokens_per_second: self.tokens_per_second(),
            time_to_first_token_s: self.time_to_first_token(),
            pause_p50_s: self.pause(0.5),
            pause_p95_s: self.pause(0.95),
            realised_over_predicted: self.realised_over_predicted(),
        }
    }
}

/// [`Stats`] in the form of `--json`. Rates that nothing was measured for are `null`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the names are those of Stats
pub struct Summary {
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    pub rounds: usize,
    pub plain_rounds: usize,
    pub drafted: usize,
    pub accepted: usize,
    pub acceptance_rate: Option<f64>,
    pub mean_acceptance_length: Option<f64>,
    pub acceptance_by_position: Vec<f64>,
    pub prefill_s: f64,
    pub decode_s: f64,
    pub draft_s: f64,
    pub verify_s: f64,
    pub other_s: f64,
    pub tokens_per_second: Option<f64>,
    pub time_to_first_token_s: f64,
    pub pause_p50_s: Option<f64>,
    pub pause_p95_s: Option<f64>,
    pub realised_over_predicted: Option<f64>,
}

impl std::ops::AddAssign for Prediction {
    fn add_assign(&mut self, other: Prediction) {
        self.tokens += other.tokens;
        self.seconds += other.seconds;
    }
}

fn ratio(a: usize, b: usize) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

/// One more in each of the first `n` counts.
fn count_up_to(counts: &mut Vec<usize>, n: usize) {
    counts.resize(counts.len().max(n), 0);
    counts[..n].iter_mut().for_each(|c| *c += 1);
}

fn add_each(counts: &mut Vec<usize>, other: &[usize]) {
    counts.resize(counts.len().max(other.len()), 0);
    counts.iter_mut().zip(other).for_each(|(a, b)| *a += b);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(drafted: usize, depth: usize, accepted: usize) -> Round {
        let (draft, score, total) = (Duration::from_millis(1), Duration::from_millis(5), Duration::from_millis(10));
        Round {
            tokens: vec![0; accepted + 1],
            drafted,
            depth,
            accepted,
            ending: Ending::Recovered,
            draft,
            score,
            total,
            predicted: None,
            threads: None,
        }
    }

    #[test]
    fn rates_follow_their_definitions() {
        let mut stats = Stats::default();
        for r in [round(4, 4, 3), round(4, 2, 0), round(0, 0, 0)] {
            stats.generated_tokens += r.tokens.len();
            stats.add(&r);
        }
        assert_eq!((stats.rounds, stats.plain_rounds), (3, 1));
        assert_eq!(stats.acceptance_rate(), Some(3.0 / 8.0));
        assert_eq!(stats.mean_acceptance_length(), Some(2.0), "plain rounds count");
        assert_eq!(stats.acceptance_by_position(), [0.5, 0.5, 1.0, 0.0]);
        assert_eq!(stats.tokens_per_second(), Some(200.0));
        assert_eq!(stats.other(), Duration::from_millis(12));
        stats.prefill = Duration::from_millis(30);
        assert!((stats.time_to_first_token() - 0.04).abs() < 1e-9);
        assert!((stats.tokens_per_wall_second().unwrap() - 100.0).abs() < 1e-9);
        assert_eq!((stats.pause(0.5), stats.pause(0.95)), (stats.pause(0.0), stats.pause(1.0)));
        assert_eq!(Stats::default().pause(0.5), None);
    }

    #[test]
    fn merging_is_adding() {
        let (mut a, mut b, mut both) = (Stats::default(), Stats::default(), Stats::default());
        a.add(&round(4, 4, 3));
        b.add(&round(2, 2, 1));
        both.add(&round(4, 4, 3));
        both.add(&round(2, 2, 1));
        a.merge(&b);
        assert_eq!(a.acceptance_by_position(), both.acceptance_by_position());
        assert_eq!((a.accepted, a.drafted), (both.accepted, both.drafted));
    }
}

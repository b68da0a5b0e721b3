//! What the rounds of a run add up to: rates, lengths and where the time went.

use std::time::Duration;

use foretoken_drafter::{NodeId, Token, TokenTree};
use serde::{Deserialize, Serialize};

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
    /// The same two by the part of the drafter that guessed; parts after the last one that guessed are left out.
    pub parts: Vec<OfPart>,
    /// Where the last token comes from.
    pub ending: Ending,
    /// Time in which the round was planned and its tree grown.
    pub draft: Duration,
    /// Time in the target's scoring pass.
    pub score: Duration,
    /// Time to make laws of the target's rows and to decide the verdict.
    pub sampling: Duration,
    /// Time to tell the drafter what became final, and for it to bring its caches and tables up to date. The target's
    /// own cache is part of its pass: nobody outside can tell the two apart.
    pub cache: Duration,
    /// Time of the whole round.
    pub total: Duration,
    /// What was predicted of it when its tree was grown and nothing of it scored yet, if anything was.
    pub predicted: Option<Prediction>,
    /// The number of threads, if it is chosen from round to round; one that is only being tried does not count.
    pub threads: Option<usize>,
    /// By which factor plain steps were just found to have become slower, no other number of threads being a remedy.
    pub slower: Option<f64>,
}

/// What a round is predicted to bring and to cost, its drafts being made and not yet scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Tokens, the recovered or bonus token included.
    pub tokens: f64,
    /// Seconds.
    pub seconds: f64,
}

/// Nodes that one part of a drafter guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfPart {
    /// Nodes verified.
    pub drafted: usize,
    /// Nodes accepted.
    pub accepted: usize,
}

/// Sums over rounds. Written down and read again they are the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Rounds whose walk came to guesses at depth d, all above having been accepted, for d = 1, 2, … Records from before
    /// this was kept have none.
    #[serde(default)]
    came_to: Vec<usize>,
    /// Nodes by the part of the drafter that guessed them. Records from before this was kept have none.
    #[serde(default)]
    parts: Vec<OfPart>,
    /// Rounds that verified n nodes, for n = 0, 1, …
    by_nodes: Vec<Alike>,
    /// Time to bring the models up to date with the prompt.
    #[serde(with = "nanoseconds")]
    pub prefill: Duration,
    /// Time in which rounds were planned and drafts made.
    #[serde(with = "nanoseconds")]
    pub draft: Duration,
    /// Time in the target's scoring passes.
    #[serde(with = "nanoseconds")]
    pub verify: Duration,
    /// Time to make laws of the target's rows and to decide the verdicts.
    #[serde(with = "nanoseconds")]
    pub sampling: Duration,
    /// Time in which drafters took note of what became final.
    #[serde(with = "nanoseconds")]
    pub cache: Duration,
    /// Time of all rounds.
    #[serde(with = "nanoseconds")]
    pub decode: Duration,
    /// From the end of the prompt to the first token.
    #[serde(with = "nanoseconds")]
    first: Duration,
    /// Seconds of every round: tokens come in bursts, these are the pauses between them.
    pauses: Vec<f32>,
    /// Tokens of every round. Records from before this was kept have none.
    #[serde(default)]
    yields: Vec<u16>,
    /// Tokens and seconds predicted of every round, before its nodes were scored; what came is in `yields` and `pauses`.
    /// Rounds after the last predicted one are left out. Records from before this was kept have none.
    #[serde(default)]
    predictions: Vec<Option<(f32, f32)>>,
    /// What was predicted of the rounds of which anything was, and what they gave.
    predicted: Prediction,
    realised: Prediction,
}

/// Sums over the rounds that verified the same number of nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Alike {
    rounds: usize,
    tokens: usize,
    /// Rounds that accepted 0, 1, 2, … of them. Records from before this was kept have none.
    #[serde(default)]
    accepted: Vec<usize>,
    #[serde(with = "nanoseconds")]
    draft: Duration,
    #[serde(with = "nanoseconds")]
    verify: Duration,
}

impl OfPart {
    /// The nodes of a tree, of which these were accepted, by part.
    pub fn of(tree: &TokenTree, accepted: &[NodeId]) -> Vec<OfPart> {
        let mut parts = Vec::new();
        for node in tree.ids().skip(1) {
            let part = tree.part(node);
            parts.resize(parts.len().max(part + 1), OfPart::default());
            parts[part].drafted += 1;
            parts[part].accepted += usize::from(accepted.contains(&node));
        }
        parts
    }
}

impl Stats {
    /// Count one more round. Generated tokens are counted by the caller, who may cut a round short.
    pub fn add(&mut self, round: &Round) {
        self.rounds += 1;
        self.plain_rounds += usize::from(round.drafted == 0);
        self.drafted += round.drafted;
        self.accepted += round.accepted;
        add_parts(&mut self.parts, &round.parts);
        count_up_to(&mut self.offered, round.depth);
        count_up_to(&mut self.reached, round.accepted);
        let was_rejected = round.drafted > 0 && round.ending == Ending::Recovered;
        count_up_to(&mut self.came_to, round.accepted + usize::from(was_rejected));
        self.alike(round.drafted).add(round);
        self.draft += round.draft;
        self.verify += round.score;
        self.sampling += round.sampling;
        self.cache += round.cache;
        self.decode += round.total;
        if self.pauses.is_empty() {
            self.first = round.total;
        }
        self.pauses.push(round.total.as_secs_f32());
        self.yields.push(u16::try_from(round.tokens.len()).unwrap_or(u16::MAX));
        if let Some(predicted) = round.predicted {
            self.predictions.resize(self.pauses.len() - 1, None);
            self.predictions.push(Some((predicted.tokens as f32, predicted.seconds as f32)));
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
        add_parts(&mut self.parts, &other.parts);
        add_each(&mut self.offered, &other.offered);
        add_each(&mut self.reached, &other.reached);
        add_each(&mut self.came_to, &other.came_to);
        other.by_nodes.iter().enumerate().for_each(|(nodes, rounds)| self.alike(nodes).merge(rounds));
        self.prefill += other.prefill;
        self.draft += other.draft;
        self.verify += other.verify;
        self.sampling += other.sampling;
        self.cache += other.cache;
        self.decode += other.decode;
        self.first += other.first;
        if !other.predictions.is_empty() {
            self.predictions.resize(self.pauses.len(), None);
            self.predictions.extend_from_slice(&other.predictions);
        }
        self.pauses.extend_from_slice(&other.pauses);
        self.yields.extend_from_slice(&other.yields);
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

    /// For each d = 1, 2, …, of the rounds that came to guesses at depth d, all above having been accepted, the share that
    /// accepted one.
    pub fn conditional_acceptance_by_position(&self) -> Vec<f64> {
        let reached = self.reached.iter().copied().chain(std::iter::repeat(0));
        self.came_to.iter().zip(reached).map(|(&came, reached)| reached as f64 / came as f64).collect()
    }

    /// For each d = 1, 2, …, the share of all rounds, plain ones included, that accepted at least d tokens.
    pub fn reached_by_position(&self) -> Vec<f64> {
        self.reached.iter().map(|&reached| reached as f64 / self.rounds as f64).collect()
    }

    /// What rounds gave and took, by the number of nodes that they verified; numbers that never occurred are left out.
    pub fn by_nodes(&self) -> Vec<OfNodes> {
        let occurred = |(_, rounds): &(usize, &Alike)| rounds.rounds > 0;
        self.by_nodes.iter().enumerate().filter(occurred).map(|(nodes, rounds)| rounds.mean(nodes)).collect()
    }

    /// Generated tokens per second of decoding, prefill excluded; `None` before the first round.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.decode.as_secs_f64();
        (seconds > 0.0).then(|| self.generated_tokens as f64 / seconds)
    }

    /// Realised / predicted tokens per second, over the rounds that were predicted; `None` if none was. A prediction is
    /// made before the nodes are scored, but after they were drafted.
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
        // The nearest rank.
        let rank = (share * pauses.len() as f64).ceil() as usize;
        pauses.get(rank.max(1) - 1).map(|&seconds| f64::from(seconds))
    }

    /// Seconds of each stretch of so many tokens of one text, without the rest at its end. A round that reaches over a
    /// border counts on both sides, by its tokens.
    pub fn stretches(&self, tokens: usize) -> Vec<f64> {
        let whole = tokens.max(1) as f64;
        let (mut stretches, mut within, mut seconds) = (Vec::new(), 0.0, 0.0);
        for (&pause, &tokens) in self.pauses.iter().zip(&self.yields).filter(|(_, &tokens)| tokens > 0) {
            let (mut left, each) = (f64::from(tokens), f64::from(pause) / f64::from(tokens));
            while within + left >= whole {
                let taken = whole - within;
                stretches.push(seconds + taken * each);
                (within, seconds, left) = (0.0, 0.0, left - taken);
            }
            within += left;
            seconds += left * each;
        }
        stretches
    }

    /// Generated tokens per second of prefill and decoding together.
    pub fn tokens_per_wall_second(&self) -> Option<f64> {
        let seconds = (self.prefill + self.decode).as_secs_f64();
        (seconds > 0.0).then(|| self.generated_tokens as f64 / seconds)
    }

    /// Time of the rounds that is in none of the other parts.
    pub fn other(&self) -> Duration {
        self.decode.saturating_sub(self.draft + self.verify + self.sampling + self.cache)
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
            conditional_acceptance_by_position: self.conditional_acceptance_by_position(),
            reached_by_position: self.reached_by_position(),
            by_part: self.parts.clone(),
            by_nodes: self.by_nodes(),
            prefill_s: self.prefill.as_secs_f64(),
            decode_s: self.decode.as_secs_f64(),
            draft_s: self.draft.as_secs_f64(),
            verify_s: self.verify.as_secs_f64(),
            sampling_s: self.sampling.as_secs_f64(),
            cache_s: self.cache.as_secs_f64(),
            other_s: self.other().as_secs_f64(),
            tokens_per_second: self.tokens_per_second(),
            time_to_first_token_s: self.time_to_first_token(),
            pause_p50_s: self.pause(0.5),
            pause_p95_s: self.pause(0.95),
            realised_over_predicted: self.realised_over_predicted(),
        }
    }

    fn alike(&mut self, nodes: usize) -> &mut Alike {
        self.by_nodes.resize(self.by_nodes.len().max(nodes + 1), Alike::default());
        &mut self.by_nodes[nodes]
    }
}

impl Alike {
    fn add(&mut self, round: &Round) {
        self.rounds += 1;
        self.tokens += round.tokens.len();
        self.accepted.resize(self.accepted.len().max(round.accepted + 1), 0);
        self.accepted[round.accepted] += 1;
        self.draft += round.draft;
        self.verify += round.score;
    }

    fn merge(&mut self, other: &Alike) {
        self.rounds += other.rounds;
        self.tokens += other.tokens;
        add_each(&mut self.accepted, &other.accepted);
        self.draft += other.draft;
        self.verify += other.verify;
    }

    fn mean(&self, nodes: usize) -> OfNodes {
        let mean = |time: Duration| time.as_secs_f64() / self.rounds as f64;
        OfNodes {
            nodes,
            rounds: self.rounds,
            tokens: self.tokens,
            accepted: self.accepted.clone(),
            pass_s: mean(self.verify),
            draft_s: mean(self.draft),
        }
    }
}

/// [`Stats`] in the form of `--json`. Rates that nothing was measured for are `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Rounds, plain ones included.
    pub rounds: usize,
    /// Rounds in which nothing was drafted.
    pub plain_rounds: usize,
    /// Nodes verified.
    pub drafted: usize,
    /// Nodes accepted.
    pub accepted: usize,
    /// Accepted / drafted.
    pub acceptance_rate: Option<f64>,
    /// Tokens per pass of the target, the recovered or bonus token included.
    pub mean_acceptance_length: Option<f64>,
    /// The share of rounds that accepted a token at depth 1, 2, …, among those that drafted one there.
    pub acceptance_by_position: Vec<f64>,
    /// Of the rounds that came to guesses at depth 1, 2, …, all above having been accepted, the share that accepted one.
    pub conditional_acceptance_by_position: Vec<f64>,
    /// The share of all rounds that accepted at least 1, 2, … tokens.
    pub reached_by_position: Vec<f64>,
    /// Nodes by the part of the drafter that guessed them.
    pub by_part: Vec<OfPart>,
    /// Rounds by the number of nodes verified: what was chosen, and T(n) as it was.
    pub by_nodes: Vec<OfNodes>,
    /// Seconds to bring the models up to date with the prompt.
    pub prefill_s: f64,
    /// Seconds of all rounds: the sum of the five that follow.
    pub decode_s: f64,
    /// Seconds in which rounds were planned and drafts made.
    pub draft_s: f64,
    /// Seconds in the target's scoring passes.
    pub verify_s: f64,
    /// Seconds in which rows became laws and verdicts were decided.
    pub sampling_s: f64,
    /// Seconds in which drafters took note of what became final, in caches and tables of theirs.
    pub cache_s: f64,
    /// Seconds in none of these parts.
    pub other_s: f64,
    /// Generated tokens per second of decoding.
    pub tokens_per_second: Option<f64>,
    /// Seconds from the prompt to the first token; of several runs, their sum.
    pub time_to_first_token_s: f64,
    /// The median pause between two bursts of tokens, in seconds.
    pub pause_p50_s: Option<f64>,
    /// The pause that 95 % of all pauses do not exceed, in seconds.
    pub pause_p95_s: Option<f64>,
    /// Realised / predicted tokens per second, over the rounds that were predicted before their nodes were scored.
    pub realised_over_predicted: Option<f64>,
}

/// A time as whole nanoseconds. So many fit into a number that no sum of times read from a file can overflow.
mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

/// What the rounds that verified so many nodes gave and took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfNodes {
    /// Nodes verified, the root not counted: n - 1 of T(n).
    pub nodes: usize,
    /// How many such rounds there were.
    pub rounds: usize,
    /// Tokens that became final in them, all together.
    pub tokens: usize,
    /// How many of the rounds accepted 0, 1, 2, … nodes; empty in records from before this was kept.
    pub accepted: Vec<usize>,
    /// Mean seconds of the verifying pass: T(n) as it was.
    pub pass_s: f64,
    /// Mean seconds of drafting.
    pub draft_s: f64,
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

fn add_parts(parts: &mut Vec<OfPart>, other: &[OfPart]) {
    parts.resize(parts.len().max(other.len()), OfPart::default());
    for (a, b) in parts.iter_mut().zip(other) {
        a.drafted += b.drafted;
        a.accepted += b.accepted;
    }
}

fn add_each(counts: &mut Vec<usize>, other: &[usize]) {
    counts.resize(counts.len().max(other.len()), 0);
    counts.iter_mut().zip(other).for_each(|(a, b)| *a += b);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(drafted: usize, depth: usize, accepted: usize) -> Round {
        let [draft, cache, sampling, score, total] = [1, 1, 2, 4, 10].map(Duration::from_millis);
        Round {
            tokens: vec![0; accepted + 1],
            drafted,
            depth,
            accepted,
            parts: Vec::new(),
            ending: if accepted < depth { Ending::Recovered } else { Ending::Bonus },
            draft,
            score,
            sampling,
            cache,
            total,
            predicted: None,
            threads: None,
            slower: None,
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
        assert_eq!(stats.reached_by_position(), [1.0 / 3.0; 3], "plain rounds count here too");
        assert_eq!(stats.conditional_acceptance_by_position(), [0.5, 1.0, 1.0, 0.0]);
        let mut more = stats.clone();
        more.add(&round(2, 2, 2));
        assert_eq!(more.conditional_acceptance_by_position(), [2.0 / 3.0, 1.0, 1.0, 0.0], "no third guess to come to");
        assert_eq!(stats.tokens_per_second(), Some(200.0));
        assert_eq!(stats.other(), Duration::from_millis(6));
        stats.prefill = Duration::from_millis(30);
        assert!((stats.time_to_first_token() - 0.04).abs() < 1e-9);
        assert!((stats.tokens_per_wall_second().unwrap() - 100.0).abs() < 1e-9);
        assert_eq!((stats.pause(0.5), stats.pause(0.95)), (stats.pause(0.0), stats.pause(1.0)));
        assert_eq!(Stats::default().pause(0.5), None);
    }

    #[test]
    fn stretches_share_the_rounds_at_their_borders() {
        let mut stats = Stats::default();
        // 4 tokens in 10 ms, then 1, 1 and 6 tokens in 10 ms each: three stretches of 4.
        [round(3, 3, 3), round(0, 0, 0), round(0, 0, 0), round(5, 5, 5)].iter().for_each(|r| stats.add(r));
        let milliseconds =
            |tokens| -> Vec<f64> { stats.stretches(tokens).iter().map(|s| (1e5 * s).round() / 100.0).collect() };
        assert_eq!(milliseconds(4), [10.0, 23.33, 6.67]);
        assert_eq!(milliseconds(5), [20.0, 16.67], "the last two tokens are no stretch");
        assert_eq!(milliseconds(12), [40.0]);
        assert_eq!(milliseconds(1)[..5], [2.5, 2.5, 2.5, 2.5, 10.0]);
        assert!(milliseconds(13).is_empty() && Stats::default().stretches(0).is_empty());
    }

    #[test]
    fn rounds_are_told_apart_by_their_nodes() {
        let mut stats = Stats::default();
        let slow = Round { score: Duration::from_millis(8), ..round(4, 2, 0) };
        [round(4, 4, 3), slow, round(0, 0, 0)].iter().for_each(|r| stats.add(r));
        let plain = OfNodes { nodes: 0, rounds: 1, tokens: 1, accepted: vec![1], pass_s: 0.004, draft_s: 0.001 };
        let accepted = vec![1, 0, 0, 1];
        let drafted = OfNodes { nodes: 4, rounds: 2, tokens: 5, accepted, pass_s: 0.006, draft_s: 0.001 };
        assert_eq!(stats.by_nodes(), [plain, drafted], "no row for what never occurred");
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let mut stats = Stats { prompt_tokens: 3, generated_tokens: 7, ..Stats::default() };
        stats.prefill = Duration::from_nanos(1_234_567_891);
        let odd = Round { total: Duration::from_nanos(33_333_333), ..round(2, 2, 1) };
        let predicted =
            Round { predicted: Some(Prediction { tokens: 1.1, seconds: 0.9635240911549233 }), ..round(4, 4, 3) };
        [odd, predicted, round(0, 0, 0)].iter().for_each(|r| stats.add(r));
        let text = serde_json::to_string(&stats).unwrap();
        assert_eq!(serde_json::from_str::<Stats>(&text).unwrap(), stats, "{text}");
        let forever = text.replace("1234567891", &u64::MAX.to_string());
        let mut forever: Stats = serde_json::from_str(&forever).unwrap();
        forever.merge(&forever.clone());
        assert_eq!(forever.prefill, 2 * Duration::from_nanos(u64::MAX), "the longest times that a file can hold");
    }

    #[test]
    fn predictions_stand_beside_what_came() {
        let predicted = |tokens, seconds| Round { predicted: Some(Prediction { tokens, seconds }), ..round(4, 4, 3) };
        let mut stats = Stats::default();
        [predicted(2.5, 0.5), round(0, 0, 0), predicted(3.5, 0.25)].iter().for_each(|r| stats.add(r));
        let some = |tokens, seconds| Some((tokens, seconds));
        assert_eq!(stats.predictions, [some(2.5, 0.5), None, some(3.5, 0.25)]);
        assert_eq!((stats.yields.len(), stats.pauses.len()), (3, 3));
        stats.add(&round(0, 0, 0));
        let before = stats.predictions.clone();
        stats.merge(&stats.clone());
        assert_eq!(
            stats.predictions,
            [&before[..], &[None], &before[..]].concat(),
            "a round without one keeps its place"
        );
        let mut old = serde_json::to_value(&stats).unwrap();
        old.as_object_mut().unwrap().remove("predictions");
        let old: Stats = serde_json::from_value(old).unwrap();
        assert_eq!((old.predictions.len(), old.realised_over_predicted()), (0, stats.realised_over_predicted()));
    }

    #[test]
    fn merging_is_adding() {
        let (mut a, mut b, mut both) = (Stats::default(), Stats::default(), Stats::default());
        a.add(&round(4, 4, 3));
        b.add(&round(2, 2, 1));
        both.add(&round(4, 4, 3));
        both.add(&round(2, 2, 1));
        a.merge(&b);
        assert_eq!(a.time_to_first_token(), 2.0 * both.time_to_first_token(), "each run has a first token");
        let rest = |stats: &Stats| Summary { time_to_first_token_s: 0.0, ..stats.summary() };
        assert_eq!(rest(&a), rest(&both));
    }
}

//! How likely a successor is to be right: counted, by its rank and by how probable the target thought it.
//!
//! The stored probability belongs to another context, where the token before was another, so it is not the probability
//! here; but it tells a sure successor from a doubtful one, which the rank alone does not. So the two together choose
//! a class, and each class counts how often its successors were right. On toy texts ranks alone chose up to 3 % worse;
//! probabilities alone chose 3 % better at times, but took a greedy text's first successor for as doubtful as its second.
//! Pure arithmetic: it knows neither table nor tree.

/// Smoothed ratios of counts by class, which forget slowly.
pub struct Beliefs {
    class: Class,
    hits: Vec<f32>,
    trials: Vec<f32>,
}

/// From the rank and the stored probability to a class and what is believed of it before anything is counted.
type Class = fn(rank: usize, probability: f32) -> (usize, f32);

impl Default for Beliefs {
    fn default() -> Beliefs {
        Beliefs::by(rank_and_probability)
    }
}

impl Beliefs {
    fn by(class: Class) -> Beliefs {
        Beliefs { class, hits: vec![0.0; CLASSES], trials: vec![0.0; CLASSES] }
    }

    /// A successor was offered, and was right or not.
    pub fn record(&mut self, rank: usize, probability: f32, right: bool) {
        let (class, _) = (self.class)(rank, probability);
        let (hits, trials) = (&mut self.hits[class], &mut self.trials[class]);
        *hits += f32::from(u8::from(right));
        *trials += 1.0;
        if *trials > MEMORY {
            *hits *= 0.5;
            *trials *= 0.5;
        }
    }

    /// Estimated probability that a successor is right.
    pub fn of(&self, rank: usize, probability: f32) -> f32 {
        let (class, prior) = (self.class)(rank, probability);
        (self.hits[class] + prior * PRIOR_TRIALS) / (self.trials[class] + PRIOR_TRIALS)
    }
}

/// By both.
fn rank_and_probability(rank: usize, probability: f32) -> (usize, f32) {
    let (rank, prior) = by_rank(rank, probability);
    let (bin, _) = by_probability(rank, probability);
    (rank * BINS + bin, prior)
}

/// By the rank alone.
fn by_rank(rank: usize, _: f32) -> (usize, f32) {
    let rank = rank.min(RANKS - 1);
    (rank, 0.4 / (1 << rank) as f32)
}

/// By the stored probability alone, in steps of a factor of 2.
fn by_probability(_: usize, probability: f32) -> (usize, f32) {
    let bin = (-probability.max(f32::MIN_POSITIVE).log2()).max(0.0) as usize;
    (bin.min(BINS - 1), 0.5 * probability.clamp(0.0, 1.0))
}

/// Ranks that are told apart, the last and all beyond it as one, and steps of probability.
const RANKS: usize = 8;
const BINS: usize = 8;
const CLASSES: usize = RANKS * BINS;
const PRIOR_TRIALS: f32 = 4.0;
const MEMORY: f32 = 1024.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// From 0 to 1, by everything given (splitmix64 over the parts).
    fn unit(parts: &[u64]) -> f32 {
        let mix = |x: u64| {
            let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        (parts.iter().fold(7, |state, &part| mix(state ^ part)) >> 40) as f32 / (1u64 << 24) as f32
    }

    const VOCAB: u64 = 64;

    /// The law of a token that depends on the last one by `share` and on the last two for the rest, likeliest first.
    fn law(share: f32, sharpness: f32, before: u64, last: u64) -> Vec<(u64, f32)> {
        let logit = |t| sharpness * (share * unit(&[1, last, t]) + (1.0 - share) * unit(&[2, before, last, t]));
        let mut law: Vec<(u64, f32)> = (0..VOCAB).map(|t| (t, logit(t).exp())).collect();
        let sum: f32 = law.iter().map(|l| l.1).sum();
        law.iter_mut().for_each(|l| l.1 /= sum);
        law.sort_by(|a, b| b.1.total_cmp(&a.1));
        law
    }

    /// Writes a text of that law, and compares two ways to believe with the probabilities that are known here, at the
    /// text's end and at a place elsewhere, as in a tree with two nodes to expand: the error of the beliefs (root of
    /// the mean square), and how much of the law the four most believed of all successors cover.
    fn compare(ways: [Class; 3], share: f32, sharpness: f32, greedy: bool) -> [(f32, f32); 3] {
        let mut ways = ways.map(Beliefs::by);
        let mut sums = [(0.0f32, 0.0f32); 3];
        let mut table = vec![Vec::<(u64, f32)>::new(); VOCAB as usize];
        let (mut before, mut last, mut n_offers, mut n) = (0, 1, 0.0f32, 0.0);
        for step in 0..12_000 {
            let laws = [law(share, sharpness, before, last), {
                let random = |i| (unit(&[4, step, i]) * VOCAB as f32) as u64;
                law(share, sharpness, random(0), random(1))
            }];
            let elsewhere = (unit(&[4, step, 1]) * VOCAB as f32) as usize;
            for (way, sum) in ways.iter().zip(&mut sums).filter(|_| step >= 2_000) {
                let mut offers: Vec<(f32, f32)> = Vec::new();
                for (law, row) in laws.iter().zip([&table[last as usize], &table[elsewhere]]) {
                    let truth = |token| match greedy {
                        true => f32::from(u8::from(law[0].0 == token)),
                        false => law.iter().find(|l| l.0 == token).map_or(0.0, |l| l.1),
                    };
                    offers.extend(row.iter().enumerate().map(|(rank, &(t, p))| (way.of(rank, p), truth(t))));
                }
                sum.0 += offers.iter().map(|(belief, truth)| (belief - truth).powi(2)).sum::<f32>();
                n_offers += offers.len() as f32 / 3.0;
                // Equals in an order that favours neither place.
                if step % 2 == 0 {
                    offers.reverse();
                }
                offers.sort_by(|a, b| b.0.total_cmp(&a.0));
                sum.1 += offers.iter().take(4).map(|offer| offer.1).sum::<f32>() / 2.0;
                n += 1.0 / 3.0;
            }
            let mut dice = unit(&[3, step]);
            let drawn = laws[0].iter().find(|l| {
                dice -= l.1;
                dice < 0.0
            });
            let next = match greedy && step % 10 > 0 {
                true => laws[0][0].0,
                false => drawn.map_or(0, |l| l.0),
            };
            for (rank, &(token, p)) in table[last as usize].iter().enumerate() {
                ways.iter_mut().for_each(|way| way.record(rank, p, token == next));
            }
            table[last as usize] = laws[0][..8].to_vec();
            (before, last) = (last, next);
        }
        sums.map(|(error, covered)| ((error / n_offers).sqrt(), covered / n))
    }

    #[test]
    fn rank_and_probability_together_are_never_far_behind_either() {
        let (mut ahead_of_rank, mut ahead_of_probability) = (0.0f32, 0.0f32);
        let toys = [(1.0, 12.0), (0.8, 14.0), (0.6, 14.0), (0.3, 16.0)];
        for ((share, sharpness), greedy) in toys.into_iter().flat_map(|toy| [(toy, false), (toy, true)]) {
            let ways = [by_rank, by_probability, rank_and_probability];
            let [rank, probability, both] = compare(ways, share, sharpness, greedy);
            println!(
                "share {share}, greedy {greedy}: error and covered, by rank {rank:.3?}, by probability \
                 {probability:.3?}, by both {both:.3?}"
            );
            assert!(both.0 < rank.0.min(probability.0) + 0.005, "share {share}, greedy {greedy}: error");
            assert!(both.1 > 0.96 * rank.1.max(probability.1), "share {share}, greedy {greedy}: covered");
            ahead_of_rank = ahead_of_rank.max(both.1 / rank.1);
            ahead_of_probability = ahead_of_probability.max(probability.0 - both.0);
        }
        assert!(ahead_of_rank > 1.02, "ranks alone choose worse somewhere: {ahead_of_rank}");
        assert!(ahead_of_probability > 0.1, "probabilities alone are far off somewhere: {ahead_of_probability}");
    }

    #[test]
    fn beliefs_follow_what_happens() {
        let mut beliefs = Beliefs::default();
        assert!(beliefs.of(0, 0.9) > beliefs.of(1, 0.9) && beliefs.of(1, 0.9) > beliefs.of(63, 0.9));
        (0..5_000).for_each(|i| beliefs.record(2, 0.3, i % 10 == 0));
        assert!((beliefs.of(2, 0.3) - 0.1).abs() < 0.02);
        (0..5_000).for_each(|_| beliefs.record(2, 0.3, true));
        assert!(beliefs.of(2, 0.3) > 0.9);
        for (rank, probability) in [(usize::MAX, f32::NAN), (0, f32::INFINITY), (0, -1.0), (9, 0.0)] {
            beliefs.record(rank, probability, false);
            assert!((0.0..=1.0).contains(&beliefs.of(rank, probability)));
        }
    }
}

//! What speculation should bring: tokens per round and speed-up, from how often guesses are accepted and what they cost.
//!
//! [`crate::page`] draws these curves beside what was measured. The formulas are those of Leviathan, Kalman and Matias,
//! *Fast Inference from Transformers via Speculative Decoding* (2023), with their α and c; their γ is K here. They take a
//! pass of the target to cost the same however many tokens it scores. It does not, so T(K+1)/T(1) stands in its place;
//! and they take every guess to be equally likely to be right. It is not, so [`Acceptance::ByPosition`] stands beside it.
//!
//! All of it is about a chain of K guesses in every round; a tree, or a round without a guess, is another matter.

/// How likely a guess is to be accepted, given that all before it in its round were.
#[derive(Clone, Debug, PartialEq)]
pub enum Acceptance {
    /// Leviathan's α: the same for every guess.
    Same(f64),
    /// For the first guess of a round, the second, and so on; guesses beyond are taken to be like the last one.
    ByPosition(Vec<f64>),
}

impl Acceptance {
    /// The α of `shares`, the share of rounds that accepted a guess at each position: of all guesses that the walk came
    /// to, how many it accepted. `None` if nothing was drafted.
    pub fn same(shares: &[f64]) -> Option<Acceptance> {
        let (last, before) = shares.split_last()?;
        let come_to = 1.0 + before.iter().sum::<f64>();
        Some(Acceptance::Same(((last + before.iter().sum::<f64>()) / come_to).clamp(0.0, 1.0)))
    }

    /// The conditional rates of `shares`, the share of rounds that accepted a guess at each position: each over the one
    /// before it, which is right where all rounds drafted chains of one length. `None` if nothing was drafted.
    pub fn by_position(shares: &[f64]) -> Option<Acceptance> {
        let before = std::iter::once(1.0).chain(shares.iter().copied());
        let rate = |(&share, before): (&f64, f64)| if before > 0.0 { (share / before).clamp(0.0, 1.0) } else { 0.0 };
        (!shares.is_empty()).then(|| Acceptance::ByPosition(shares.iter().zip(before).map(rate).collect()))
    }

    /// The α at which chains of `k` guesses, of some length around it if it is no whole number, yield `tokens` a round.
    pub fn yielding(tokens: f64, k: f64) -> Acceptance {
        let k = k.clamp(0.0, LARGEST);
        let (shorter, share) = (k as usize, k.fract());
        let expected = |alpha: f64| {
            let of = |k| Acceptance::Same(alpha).expected_tokens(k);
            of(shorter) * (1.0 - share) + of(shorter + 1) * share
        };
        let halve = |(low, high): (f64, f64), _| {
            let middle = (low + high) / 2.0;
            if expected(middle) < tokens {
                (middle, high)
            } else {
                (low, middle)
            }
        };
        let (low, high) = (0..HALVINGS).fold((0.0, 1.0), halve);
        Acceptance::Same((low + high) / 2.0)
    }

    /// Tokens that a round with `k` guesses yields on average, the recovered or bonus token included. Of one rate, it is
    /// Leviathan's (1 − α^(K+1)) / (1 − α).
    pub fn expected_tokens(&self, k: usize) -> f64 {
        match self {
            Acceptance::Same(alpha) if *alpha >= 1.0 => 1.0 + k as f64,
            Acceptance::Same(alpha) => (1.0 - alpha.powf(k as f64 + 1.0)) / (1.0 - alpha),
            Acceptance::ByPosition(rates) => 1.0 + survivals(rates).take(k).sum::<f64>(),
        }
    }

    /// Tokens per plain step, that is how many times as fast as plain decoding: expected tokens over the
    /// K·c + T(K+1)/T(1) plain steps that a round takes.
    pub fn speed_up(&self, k: usize, costs: &Costs) -> f64 {
        self.expected_tokens(k) / (k as f64 * costs.draft + costs.passes.ratio(k as f64 + 1.0))
    }

    /// The number of guesses from 0 to `most` that is fastest, the least of equals, and its speed-up.
    pub fn best(&self, most: usize, costs: &Costs) -> (usize, f64) {
        let speeds = (1..=most).map(|k| (k, self.speed_up(k, costs)));
        speeds.fold((0, 1.0), |best, next| if next.1 > best.1 { next } else { best })
    }
}

/// The probabilities that a chain is accepted up to its first guess, its second, and so on without end.
fn survivals(rates: &[f64]) -> impl Iterator<Item = f64> + '_ {
    let beyond = std::iter::repeat(rates.last().copied().unwrap_or(0.0));
    rates.iter().copied().chain(beyond).scan(1.0, |survival, rate| {
        *survival *= rate;
        Some(*survival)
    })
}

/// What guesses cost, in plain steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// Leviathan's c: drafting one token.
    pub draft: f64,
    /// Scoring them.
    pub passes: Passes,
}

/// T(n)/T(1): a pass over n tokens, root included, over a pass of plain decoding. Straight between what was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passes {
    /// n and ratio, by n, beyond n = 1.
    points: Vec<(f64, f64)>,
}

impl Passes {
    /// Of measured `(n, ratio, rounds)`: those that round to the same n are averaged by their rounds, and
    /// left out if those are few.
    pub fn of(measured: &[(f64, f64, f64)]) -> Passes {
        let usable = |&&(n, ratio, rounds): &&(f64, f64, f64)| {
            n.round() > 1.0 && n < LARGEST && ratio > 0.0 && ratio < LARGEST && rounds > 0.0 && rounds.is_finite()
        };
        let mut sums: std::collections::BTreeMap<u64, [f64; 3]> = std::collections::BTreeMap::new();
        for &(n, ratio, rounds) in measured.iter().filter(usable) {
            let sum = sums.entry(n.round() as u64).or_default();
            [n * rounds, ratio * rounds, rounds].iter().zip(sum).for_each(|(add, sum)| *sum += add);
        }
        let enough = sums.values().filter(|[_, _, rounds]| *rounds >= FEW);
        Passes { points: enough.map(|[n, ratio, rounds]| (n / rounds, ratio / rounds)).collect() }
    }

    /// What was measured: n and ratio, by n, beyond n = 1.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// T(`n`)/T(1). Beyond what was measured it rises as it did from 1 to the last point; if nothing was, it is 1.
    pub fn ratio(&self, n: f64) -> f64 {
        let mut before = (1.0, 1.0);
        for &point in &self.points {
            if n <= point.0 {
                return before.1 + (point.1 - before.1) * (n - before.0) / (point.0 - before.0);
            }
            before = point;
        }
        let slope = if before.0 > 1.0 { ((before.1 - 1.0) / (before.0 - 1.0)).max(0.0) } else { 0.0 };
        before.1 + slope * (n - before.0)
    }
}

/// After these, an α is known to the last digit.
const HALVINGS: usize = 52;
/// The mean of fewer rounds says little of a machine that others use too.
const FEW: f64 = 5.0;
/// More tokens in a pass, or a dearer one, is no measurement.
const LARGEST: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: over every number of accepted guesses, its probability times the tokens it yields.
    fn enumerated(rates: &[f64]) -> f64 {
        let k = rates.len();
        let probability = |accepted: usize| {
            let all: f64 = rates[..accepted].iter().product();
            all * if accepted < k { 1.0 - rates[accepted] } else { 1.0 }
        };
        let total: f64 = (0..=k).map(probability).sum();
        assert!((total - 1.0).abs() < 1e-12, "the cases are all there are");
        (0..=k).map(|accepted| probability(accepted) * (accepted as f64 + 1.0)).sum()
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn the_formula_is_the_sum_over_what_may_be_accepted() {
        for k in 0..12 {
            for tenths in 0..=10 {
                let alpha = f64::from(tenths) / 10.0;
                near(Acceptance::Same(alpha).expected_tokens(k), enumerated(&vec![alpha; k]));
            }
        }
        let rates = [0.9, 0.5, 0.75, 0.2];
        for k in 0..=rates.len() {
            near(Acceptance::ByPosition(rates.to_vec()).expected_tokens(k), enumerated(&rates[..k]));
        }
    }

    #[test]
    fn beyond_the_last_position_the_last_rate_goes_on() {
        near(Acceptance::ByPosition(vec![0.9, 0.5]).expected_tokens(4), enumerated(&[0.9, 0.5, 0.5, 0.5]));
    }

    #[test]
    fn the_rate_that_yields_so_many_tokens() {
        let found = |tokens, k| match Acceptance::yielding(tokens, k) {
            Acceptance::Same(alpha) => alpha,
            other => panic!("{other:?}"),
        };
        near(found(1.75, 2.0), 0.5);
        let between = 0.75 * Acceptance::Same(0.6).expected_tokens(2) + 0.25 * Acceptance::Same(0.6).expected_tokens(3);
        near(found(between, 2.25), 0.6);
        near(found(1.0, 4.0), 0.0);
        near(found(9.0, 4.0), 1.0);
    }

    #[test]
    fn worked_by_hand() {
        near(Acceptance::Same(0.5).expected_tokens(2), 1.75);
        near(Acceptance::Same(0.8).expected_tokens(1), 1.8);
        let costs = Costs { draft: 0.1, passes: Passes::of(&[(3.0, 1.3, 10.0), (5.0, 2.0, 10.0)]) };
        near(Acceptance::Same(0.5).speed_up(2, &costs), 1.75 / (0.2 + 1.3));
        near(Acceptance::Same(0.5).speed_up(1, &costs), 1.5 / (0.1 + 1.15));
    }

    #[test]
    fn free_passes_and_drafts_give_leviathans_factor() {
        let costs = Costs { draft: 0.05, passes: Passes::default() };
        near(Acceptance::Same(0.7).speed_up(4, &costs), (1.0 - 0.7_f64.powi(5)) / (0.3 * (4.0 * 0.05 + 1.0)));
    }

    #[test]
    fn the_best_length_is_the_fastest_of_all() {
        let costs = Costs { draft: 0.1, passes: Passes::of(&[(2.0, 1.2, 10.0), (9.0, 3.0, 10.0)]) };
        let acceptance = Acceptance::Same(0.8);
        let (k, speed) = acceptance.best(8, &costs);
        assert!((1..=8).all(|other| acceptance.speed_up(other, &costs) <= speed));
        near(acceptance.speed_up(k, &costs), speed);
        assert!(k > 1 && k < 8, "neither end: {k}");
        assert_eq!(Acceptance::Same(0.0).best(8, &costs), (0, 1.0), "what is never accepted is best not drafted");
    }

    #[test]
    fn rates_from_the_shares_of_rounds() {
        let shares = [0.8, 0.4, 0.1];
        assert_eq!(Acceptance::by_position(&shares), Some(Acceptance::ByPosition(vec![0.8, 0.5, 0.25])));
        let Some(Acceptance::Same(alpha)) = Acceptance::same(&shares) else { panic!("something was drafted") };
        near(alpha, 1.3 / 2.2);
        assert_eq!((Acceptance::same(&[]), Acceptance::by_position(&[])), (None, None));
        assert_eq!(Acceptance::by_position(&[0.0, 0.0]), Some(Acceptance::ByPosition(vec![0.0, 0.0])));
    }

    #[test]
    fn by_position_gives_back_the_tokens_it_was_measured_on() {
        let shares = [0.8, 0.4, 0.1];
        let acceptance = Acceptance::by_position(&shares).expect("something was drafted");
        near(acceptance.expected_tokens(3), 1.0 + shares.iter().sum::<f64>());
    }

    #[test]
    fn passes_are_straight_between_points_and_go_on_beyond() {
        let passes =
            Passes::of(&[(4.8, 2.0, 30.0), (5.2, 3.0, 10.0), (1.2, 9.0, 10.0), (f64::NAN, 1.0, 10.0), (8.0, 9.0, 4.0)]);
        assert_eq!(passes.points().len(), 1, "one is plain, one is no number, one rests on four rounds");
        let (n, ratio) = passes.points()[0];
        near(n, 4.9);
        near(ratio, 2.25);
        near(passes.ratio(1.0), 1.0);
        near(passes.ratio(1.0 + 3.9 / 2.0), 1.625);
        near(passes.ratio(4.9 + 3.9), 3.5);
        near(Passes::default().ratio(7.0), 1.0);
    }
}

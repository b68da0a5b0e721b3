//! Medians and how far to trust them: what `bench` says about a handful of noisy ratios.
//!
//! Ratios of one prompt resemble each other, so the bootstrap draws prompts first, repeats of each drawn prompt second
//! and stretches of each drawn text third, if its methods took turns; drawing single ratios would make the interval too
//! narrow.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The middle value; the mean of the two middle ones if their number is even. `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// The quartiles around the median, interpolated linearly.
pub fn quartiles(values: &[f64]) -> Option<(f64, f64)> {
    let values = sorted(values);
    Some((quantile(&values, 0.25)?, quantile(&values, 0.75)?))
}

/// The geometric mean. `None` if there is nothing, or something not positive.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    if let [one] = values {
        return Some(*one).filter(|&one| one > 0.0); // exp(ln(x)) may differ in the last digit
    }
    let sum: Option<f64> = values.iter().map(|&v| (v > 0.0).then(|| v.ln())).sum();
    sum.filter(|_| !values.is_empty()).map(|sum| (sum / values.len() as f64).exp())
}

/// How much faster one method was than another on one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Quotient {
    /// Over the whole text.
    pub whole: f64,
    /// Seconds of the other and of the one for each stretch of the text, if they took turns.
    pub stretches: Vec<(f64, f64)>,
}

/// Of a text without turns.
impl From<f64> for Quotient {
    fn from(whole: f64) -> Quotient {
        Quotient { whole, stretches: Vec::new() }
    }
}

impl Quotient {
    /// Of every second stretch, the first or the second of each two. `None` if there are none.
    pub fn half(&self, second: bool) -> Option<Quotient> {
        let stretches: Vec<_> = self.stretches.iter().copied().skip(usize::from(second)).step_by(2).collect();
        Some(Quotient { whole: quotient(&stretches)?, stretches })
    }

    /// How many things there are to draw from.
    fn size(&self) -> usize {
        self.stretches.len().max(1)
    }

    /// As many stretches as there are, drawn with replacement; where there are none to choose from, the whole.
    fn resample(&self, rng: &mut StdRng) -> f64 {
        let n = self.stretches.len();
        let drawn: Vec<_> = (0..n).map(|_| self.stretches[rng.random_range(0..n)]).collect();
        if n < 2 { None } else { quotient(&drawn) }.unwrap_or(self.whole)
    }
}

fn quotient(stretches: &[(f64, f64)]) -> Option<f64> {
    let (other, one) = stretches.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    (one > 0.0).then(|| other / one)
}

/// The quotients of one kind of text: for each prompt, one for each repeat.
pub type Kind = Vec<Vec<Quotient>>;

/// All of a kind, over their whole texts.
pub fn wholes(kind: &Kind) -> Vec<f64> {
    kind.iter().flatten().map(|quotient| quotient.whole).collect()
}

/// The 95 % bootstrap interval (percentiles) of the geometric mean over `kinds` of their medians;
/// with one kind, of its median. The same seed gives the same interval. `None` if a kind has only one text and that no
/// stretches: one number alone does not tell how far it is to be trusted.
pub fn interval(kinds: &[Kind], seed: u64) -> Option<(f64, f64)> {
    if kinds.iter().any(|kind| kind.iter().flatten().map(Quotient::size).sum::<usize>() < 2) {
        return None;
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let means: Option<Vec<f64>> = (0..RESAMPLES)
        .map(|_| {
            let medians: Option<Vec<f64>> = kinds.iter().map(|kind| median(&resample(kind, &mut rng))).collect();
            geometric_mean(&medians?)
        })
        .collect();
    let means = sorted(&means?);
    Some((quantile(&means, 0.025)?, quantile(&means, 0.975)?))
}

/// More would change the third digit of an interval at most.
const RESAMPLES: usize = 2000;

/// As many prompts as there are, drawn with replacement, of each as many repeats, and of each as many stretches.
fn resample(kind: &Kind, rng: &mut StdRng) -> Vec<f64> {
    let mut drawn = Vec::new();
    for _ in kind {
        let prompt = &kind[rng.random_range(0..kind.len())];
        for _ in prompt {
            let text = &prompt[rng.random_range(0..prompt.len())];
            drawn.push(text.resample(rng));
        }
    }
    drawn
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles_of_known_numbers() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(quartiles(&[1.0, 2.0, 3.0, 4.0, 5.0]), Some((2.0, 4.0)));
        assert_eq!(quartiles(&[1.0, 2.0, 3.0, 4.0]), Some((1.75, 3.25)));
        assert_eq!(quartiles(&[7.0]), Some((7.0, 7.0)));
    }

    #[test]
    fn geometric_means() {
        assert!((geometric_mean(&[2.0, 8.0]).unwrap() - 4.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[0.34817062223924033]), Some(0.34817062223924033), "of one, itself");
        assert_eq!((geometric_mean(&[]), geometric_mean(&[0.0])), (None, None));
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
    }

    /// For each prompt, so many repeats of a text.
    fn of(kind: &[&[f64]]) -> Kind {
        kind.iter().map(|prompt| prompt.iter().copied().map(Quotient::from).collect()).collect()
    }

    #[test]
    fn a_bootstrap_without_spread_has_none() {
        assert_eq!(interval(&[of(&[[1.5; 3].as_slice(); 4])], 1), Some((1.5, 1.5)));
        assert_eq!(interval(&[], 1), None);
        assert_eq!(interval(&[vec![]], 1), None);
        assert_eq!(interval(&[of(&[&[1.5]])], 1), None, "one number has no spread");
    }

    #[test]
    fn one_text_has_an_interval_if_its_methods_took_turns() {
        let text = |stretches: &[(f64, f64)]| Quotient { whole: 2.0, stretches: stretches.to_vec() };
        assert_eq!(interval(&[vec![vec![text(&[(2.0, 1.0); 8])]]], 1), Some((2.0, 2.0)));
        let (low, high) = interval(&[vec![vec![text(&[(3.0, 1.0), (1.0, 1.0), (3.0, 1.0), (1.0, 1.0)])]]], 1).unwrap();
        assert!((low - 1.0).abs() < 1e-9 && (high - 3.0).abs() < 1e-9, "any four of the four: {low} {high}");
        assert_eq!(interval(&[vec![vec![text(&[(2.0, 1.0)])]]], 1), None, "one stretch has no spread");
        // Long stretches count for more than short ones, as they do in the whole.
        let uneven = text(&[(1.0, 1.0), (90.0, 30.0), (1.0, 1.0), (8.0, 2.0)]);
        assert_eq!(uneven.half(false).unwrap().whole, 1.0);
        assert_eq!(uneven.half(true).unwrap().whole, 98.0 / 32.0);
        assert_eq!(text(&[]).half(true), None);
    }

    #[test]
    fn a_bootstrap_of_normal_numbers_is_as_wide_as_theory_says() {
        // 101 numbers of a standard normal law, moved to 10: the median's standard error is
        // sqrt(pi / 2) / sqrt(101) = 0.125, so 95 % lies within 0.244 of it.
        let mut rng = StdRng::seed_from_u64(3);
        let normal = |rng: &mut StdRng| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let numbers: Vec<[f64; 1]> = (0..101).map(|_| [10.0 + normal(&mut rng)]).collect();
        let kind = of(&numbers.iter().map(<[f64; 1]>::as_slice).collect::<Vec<_>>());
        let middle = median(&wholes(&kind)).unwrap();
        let (low, high) = interval(std::slice::from_ref(&kind), 7).unwrap();
        assert_eq!(interval(&[kind], 7), Some((low, high)), "seeded");
        assert!(low < middle && middle < high);
        assert!((0.3..0.75).contains(&(high - low)), "{low} {high}");
    }

    #[test]
    fn prompts_are_drawn_whole() {
        // Two prompts that disagree: single ratios would nearly always mix them, prompts do not.
        let (low, high) = interval(&[of(&[&[1.0; 50], &[2.0; 50]])], 1).unwrap();
        assert_eq!((low, high), (1.0, 2.0));
    }
}

//! From numbers to places on an axis, and which numbers to write beside it.

/// An axis from its lowest to its highest number, linear or logarithmic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
    /// The shortest step between ticks.
    least: f64,
    log: bool,
}

impl Scale {
    /// Over all of `values`, to round numbers at both ends. Those that are no numbers are passed over.
    pub fn linear(values: impl IntoIterator<Item = f64>) -> Scale {
        Scale::stepwise(values, 0.0)
    }

    /// The same for what is counted: it has nothing between whole numbers.
    pub fn whole(values: impl IntoIterator<Item = f64>) -> Scale {
        Scale::stepwise(values, 1.0)
    }

    fn stepwise(values: impl IntoIterator<Item = f64>, least: f64) -> Scale {
        let (low, high) = range(values.into_iter().filter(|v| v.abs() <= LARGEST)).unwrap_or((0.0, 1.0));
        let high = if high - low > SMALLEST { high } else { low + 1.0 };
        let step = step(high - low).max(least);
        let (low, high) = ((low / step + ROUNDING).floor() * step, (high / step - ROUNDING).ceil() * step);
        Scale { low, high, least, log: false }
    }

    /// Over all of `values`, a little beyond both ends, each factor as long as any other. Those that are not above 0 are
    /// passed over.
    pub fn log(values: impl IntoIterator<Item = f64>) -> Scale {
        let usable = values.into_iter().filter(|v| (SMALLEST..=LARGEST).contains(v));
        let (low, high) = range(usable).unwrap_or((0.5, 2.0));
        let beyond = (high / low).powf(0.05).max(1.1);
        Scale { low: low / beyond, high: high * beyond, least: 0.0, log: true }
    }

    /// Its lowest and its highest number.
    pub fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Where `value` is: 0 at the lowest number, 1 at the highest. `None` if it is not on the axis.
    pub fn share(&self, value: f64) -> Option<f64> {
        let share = match self.log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        (-ROUNDING..=1.0 + ROUNDING).contains(&share).then(|| share.clamp(0.0, 1.0))
    }

    /// Round numbers along it, with their labels.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let ticks = if self.log { self.factors() } else { self.steps() };
        ticks.into_iter().map(|value| (value, label(value))).collect()
    }

    fn steps(&self) -> Vec<f64> {
        let step = step(self.high - self.low).max(self.least);
        let first = (self.low / step).round();
        let number = ((self.high - self.low) / step).round() as usize;
        (0..=number).map(|i| (first + i as f64) * step).collect()
    }

    fn factors(&self) -> Vec<f64> {
        let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let of = |mantissas: &[f64]| -> Vec<f64> {
            let all = decades.clone().flat_map(|d| mantissas.iter().map(move |m| m * 10f64.powi(d)));
            all.filter(|v| (self.low..=self.high).contains(v)).collect()
        };
        let finest = MANTISSAS.iter().map(|m| of(m)).find(|ticks| ticks.len() <= MOST_TICKS);
        finest.unwrap_or_else(|| of(&[1.0]))
    }
}

/// The finest first.
const MANTISSAS: [&[f64]; 5] = [
    &[1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 9.0],
    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    &[1.0, 2.0, 3.0, 5.0],
    &[1.0, 2.0, 5.0],
    &[1.0],
];
const MOST_TICKS: usize = 6;
const LARGEST: f64 = 1e9;
const SMALLEST: f64 = 1e-9;
/// Sums of steps are off by less.
const ROUNDING: f64 = 1e-9;

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })
}

/// 1, 2 or 5 times a power of ten, so that a length has three to six of them.
fn step(length: f64) -> f64 {
    let power = 10f64.powf((length / 5.0).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power * 5.0 >= length * (1.0 - ROUNDING));
    factor.unwrap_or(10.0) * power
}

/// As short as it is exact to three digits.
fn label(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(labels(Scale::linear([0.0, 1.0])), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(Scale::whole([0.0, 1.0])), ["0", "1"]);
        assert_eq!(labels(Scale::linear([0.0, 16.3])), ["0", "5", "10", "15", "20"]);
        assert_eq!(labels(Scale::log([0.7, 4.9])), ["0.7", "1", "1.5", "2", "3", "5"]);
        for high in [0.003, 0.07, 0.9, 1.0, 3.3, 17.0, 480.0, 1e6] {
            let count = Scale::linear([0.0, high]).ticks().len();
            assert!((3..=7).contains(&count), "{count} ticks up to {high}");
        }
    }

    #[test]
    fn every_value_has_its_place_and_nothing_else_has() {
        let scale = Scale::log([0.5, f64::NAN, 4.0, f64::INFINITY, -1.0, 0.0]);
        assert!([0.5, 1.0, 4.0].iter().all(|&v| scale.share(v).is_some()));
        assert!([0.0, -1.0, 9.0, f64::NAN, f64::INFINITY].iter().all(|&v| scale.share(v).is_none()));
        assert_eq!(Scale::linear([2.0, 4.0]).share(3.0), Some(0.5));
    }

    #[test]
    fn a_scale_of_nothing_or_of_one_value_has_a_length() {
        for scale in [Scale::linear([]), Scale::linear([3.0, 3.0]), Scale::log([]), Scale::log([2.0])] {
            assert!(scale.ends().0 < scale.ends().1 && scale.ticks().len() < 10, "{scale:?}");
        }
    }
}

//! A probability law over tokens, kept as its support: after top-k or top-p a few dozen entries, so
//! that residuals cost microseconds whatever the vocabulary.

use crate::{Dice, Token};

/// A probability law over tokens: the tokens with positive probability, in ascending order, with
/// probabilities that sum to one (up to rounding).
#[derive(Clone, Debug, PartialEq)]
pub struct Dist {
    tokens: Vec<Token>,
    probs: Vec<f64>,
}

impl Dist {
    /// The law that always gives `token`.
    pub fn point(token: Token) -> Dist {
        Dist { tokens: vec![token], probs: vec![1.0] }
    }

    /// The law proportional to `weights`, pairs of distinct tokens and weights in any order.
    /// `None` if no weight is positive and finite; those that are not are left out.
    pub fn from_weights(weights: impl IntoIterator<Item = (Token, f64)>) -> Option<Dist> {
        let mut pairs: Vec<(Token, f64)> = weights.into_iter().filter(|&(_, w)| w > 0.0 && w.is_finite()).collect();
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            pairs.sort_unstable_by_key(|&(token, _)| token);
            pairs.dedup_by_key(|&mut (token, _)| token);
        }
        let (tokens, probs) = pairs.into_iter().unzip();
        Dist { tokens, probs }.normalised()
    }

    /// Probability of `token`; zero outside the support.
    pub fn p(&self, token: Token) -> f64 {
        self.tokens.binary_search(&token).map_or(0.0, |i| self.probs[i])
    }

    /// The support, ascending.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The probabilities of [`tokens`](Dist::tokens), in the same order.
    pub fn probs(&self) -> &[f64] {
        &self.probs
    }

    /// `(token, probability)` in ascending order of tokens.
    pub fn iter(&self) -> impl Iterator<Item = (Token, f64)> + '_ {
        self.tokens.iter().copied().zip(self.probs.iter().copied())
    }

    /// The only token of a point mass.
    pub fn as_point(&self) -> Option<Token> {
        match self.tokens[..] {
            [token] => Some(token),
            _ => None,
        }
    }

    /// One token, drawn.
    pub fn draw(&self, dice: &mut dyn Dice) -> Token {
        match self.as_point() {
            Some(token) => token,
            // A plug-in's dice may be wrong; an index past the end means the last token.
            None => self.tokens[dice.pick(&self.probs).min(self.tokens.len() - 1)],
        }
    }

    /// This law given that the token is none of `excluded`; `None` if nothing is left.
    pub fn without(&self, excluded: &[Token]) -> Option<Dist> {
        if excluded.is_empty() {
            return Some(self.clone());
        }
        let kept = self.iter().filter(|(token, _)| !excluded.contains(token));
        let (tokens, probs) = kept.unzip();
        Dist { tokens, probs }.normalised()
    }

    /// `max(scale · self − other, 0)`: its total mass and, unless that is zero, the law proportional
    /// to it. With `scale = 1` this is the residual of speculative sampling (Leviathan et al.,
    /// arXiv 2211.17192, §2.3); with a smaller one that of block verification (arXiv 2403.10444).
    pub fn residual(&self, scale: f64, other: &Dist) -> (f64, Option<Dist>) {
        let mut others = other.iter().peekable();
        let (mut tokens, mut probs) = (Vec::with_capacity(self.tokens.len()), Vec::with_capacity(self.tokens.len()));
        for (token, p) in self.iter() {
            while others.next_if(|&(o, _)| o < token).is_some() {}
            let q = others.next_if(|&(o, _)| o == token).map_or(0.0, |(_, q)| q);
            let rest = scale * p - q;
            if rest > 0.0 {
                tokens.push(token);
                probs.push(rest);
            }
        }
        let mass: f64 = probs.iter().sum();
        (mass, Dist { tokens, probs }.normalised())
    }

    fn normalised(mut self) -> Option<Dist> {
        let sum: f64 = self.probs.iter().sum();
        if sum <= 0.0 || !sum.is_finite() {
            return None;
        }
        self.probs.iter_mut().for_each(|p| *p /= sum);
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dist(weights: &[f64]) -> Dist {
        Dist::from_weights(weights.iter().enumerate().map(|(t, &w)| (t as Token, w))).unwrap()
    }

    #[test]
    fn weights_are_normalised_sorted_and_cleaned() {
        let d = Dist::from_weights([(7, 1.0), (2, 3.0), (5, 0.0), (4, f64::NAN)]).unwrap();
        assert_eq!(d.tokens(), [2, 7]);
        assert_eq!(d.probs(), [0.75, 0.25]);
        assert!(Dist::from_weights([(1, 0.0)]).is_none());
    }

    #[test]
    fn residual_is_what_p_has_beyond_q() {
        let (mass, rest) = dist(&[0.5, 0.5]).residual(1.0, &dist(&[0.75, 0.25]));
        assert!((mass - 0.25).abs() < 1e-15);
        assert_eq!(rest.unwrap().as_point(), Some(1));
        assert_eq!(dist(&[0.5, 0.5]).residual(1.0, &dist(&[0.5, 0.5])), (0.0, None));
    }

    #[test]
    fn exclusion_renormalises() {
        let d = dist(&[0.5, 0.25, 0.25]).without(&[0]).unwrap();
        assert_eq!((d.p(0), d.p(1)), (0.0, 0.5));
        assert!(d.without(&[1, 2]).is_none());
    }
}

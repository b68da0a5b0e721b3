//! What the comparison found: speeds over llama.cpp's plain decoding, by kind of text, and the two ratios that matter.
//!
//! A ratio is taken within one prompt and one repeat, where the drift of a busy machine cancels; the median over a kind,
//! the geometric mean over kinds, and a bootstrap interval as in `foretoken bench`. llama.cpp's best setting is chosen
//! on the very runs that are reported, which favours llama.cpp a little.

use foretoken::prompts::Prompt;
use foretoken::spread::{geometric_mean, interval, median, wholes, Kind, Quotient};

use crate::readings::Reading;

/// Whose method it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    /// foretoken's.
    Ours,
    /// llama.cpp's plain decoding.
    Plain,
    /// llama.cpp's speculation.
    Theirs,
}

/// One text by one method.
pub struct Run {
    pub method: usize,
    pub prompt: usize,
    pub repeat: usize,
    pub reading: Reading,
}

/// Every run. Texts are compared with those of the first method, llama-server's plain decoding.
pub struct Results {
    pub methods: Vec<(String, Side)>,
    pub prompts: Vec<Prompt>,
    pub runs: Vec<Run>,
    /// Only then must texts agree.
    pub greedy: bool,
}

/// A ratio with its 95 % interval; a single run has none.
pub type Ratio = (f64, Option<(f64, f64)>);

impl Results {
    /// The tables: one per kind, one overall, and the sentences below them.
    pub fn table(&self) -> String {
        let mut sections: Vec<String> = self.kinds().iter().map(|kind| self.section(kind, &[kind])).collect();
        sections.push(self.section("overall", &self.kinds()));
        sections.push(self.sentences().join("\n"));
        sections.join("\n\n")
    }

    /// Every number, and the runs that they come from.
    pub fn json(&self) -> serde_json::Value {
        let name = |method: usize| self.methods[method].0.as_str();
        let run = |run: &Run| {
            let (prompt, r) = (&self.prompts[run.prompt], &run.reading);
            serde_json::json!({
                "method": name(run.method), "prompt": prompt.id, "kind": prompt.kind, "repeat": run.repeat,
                "prompt_tokens": r.prompt_tokens, "generated_tokens": r.generated, "timed_tokens": r.timed,
                "decode_s": r.seconds, "tokens_per_second": r.speed(), "differs_at": self.differs_at(run),
            })
        };
        let rows = |kind: &str, kinds: &[&str]| {
            let row = |method: usize| {
                serde_json::json!({
                    "method": name(method), "kind": kind, "tokens_per_second": self.speed(method, kinds),
                    "ratio_to_plain": self.ratio(method, self.plain(), kinds).map(|(ratio, _)| ratio),
                    "ratio_interval_95": self.ratio(method, self.plain(), kinds).and_then(|(_, interval)| interval),
                })
            };
            (0..self.methods.len()).map(row).collect::<Vec<_>>()
        };
        let kinds = self.kinds();
        let by_kind: Vec<_> = kinds.iter().flat_map(|kind| rows(kind, &[kind])).collect();
        serde_json::json!({
            "plain": name(self.plain()), "best": name(self.best()),
            "auto_over_best": self.against("foretoken-auto", self.best()),
            "plain_over_plain": self.against("foretoken-plain", self.plain()),
            "overall": rows("overall", &kinds), "kinds": by_kind,
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
    }

    /// llama.cpp's faster way of plain decoding: the measure of every ratio.
    pub fn plain(&self) -> usize {
        self.fastest(|side| side == Side::Plain)
    }

    /// llama.cpp's best single setting; plain decoding is one.
    pub fn best(&self) -> usize {
        self.fastest(|side| side != Side::Ours)
    }

    fn fastest(&self, is_candidate: impl Fn(Side) -> bool) -> usize {
        let overall = |&method: &usize| self.ratio(method, 0, &self.kinds()).map_or(0.0, |(ratio, _)| ratio);
        let candidates = (0..self.methods.len()).filter(|&method| is_candidate(self.methods[method].1));
        candidates.max_by(|a, b| overall(a).total_cmp(&overall(b))).unwrap_or(0)
    }

    /// A method of ours over one of theirs, on all kinds; `None` if it did not run.
    pub fn against(&self, ours: &str, theirs: usize) -> Option<Ratio> {
        let ours = self.methods.iter().position(|(name, _)| name == ours)?;
        self.ratio(ours, theirs, &self.kinds())
    }

    /// Where a greedy text leaves llama-server's plain one, in tokens; as far as both go. `None` if it does not.
    pub fn differs_at(&self, run: &Run) -> Option<usize> {
        let plain = &self.same(run, 0).filter(|_| self.greedy)?.reading;
        if let (Some(a), Some(b)) = (&plain.tokens, &run.reading.tokens) {
            return a.iter().zip(b).position(|(a, b)| a != b);
        }
        // A text may be cut within a character, which is then shown as a mark.
        let whole = |text: &'_ str| text.trim_end_matches('\u{fffd}').to_owned();
        let (a, b) = (whole(&plain.text), whole(&run.reading.text));
        let equal = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        let tokens = plain.ends.iter().take_while(|&&end| end <= equal).count();
        (equal < a.len().min(b.len())).then_some(tokens)
    }

    fn section(&self, title: &str, kinds: &[&str]) -> String {
        let mut lines = vec![format!("{title:<28} tokens/s  ratio  95 % range   texts that differ")];
        lines.extend((0..self.methods.len()).map(|method| self.line(method, kinds)));
        lines.join("\n")
    }

    fn line(&self, method: usize, kinds: &[&str]) -> String {
        let ratio = self.ratio(method, self.plain(), kinds);
        let range = ratio.and_then(|(_, range)| range);
        let range = range.map_or("-".to_owned(), |(low, high)| format!("{low:.2}-{high:.2}"));
        let ratio = ratio.map_or("-".to_owned(), |(ratio, _)| format!("{ratio:.2}"));
        let speed = self.speed(method, kinds).map_or("-".to_owned(), |speed| format!("{speed:.1}"));
        let name = format!("  {}", self.methods[method].0);
        format!("{name:<28} {speed:>8}  {ratio:>5}  {range:<11}  {}", self.differing(method, kinds))
    }

    fn differing(&self, method: usize, kinds: &[&str]) -> String {
        let runs = self.runs_of(method, kinds);
        let first: Vec<usize> = runs.iter().filter_map(|run| self.differs_at(run)).collect();
        match first.iter().min() {
            None if self.greedy => format!("0 of {}", runs.len()),
            None => "-".to_owned(),
            Some(earliest) => format!("{} of {}, the first at token {earliest}", first.len(), runs.len()),
        }
    }

    fn sentences(&self) -> Vec<String> {
        let (plain, best) = (self.plain(), self.best());
        let name = |method: usize| &self.methods[method].0;
        let of = |what: String, ratio: Option<Ratio>| {
            let range = |(low, high): (f64, f64)| format!(" (95 %: {low:.2}-{high:.2})");
            ratio.map(|(ratio, interval)| format!("{what}: {ratio:.2}{}", interval.map(range).unwrap_or_default()))
        };
        let mut lines = vec![format!("ratio: to {}, median; overall, geometric mean over kinds", name(plain))];
        lines.extend(of(
            format!("foretoken-auto / llama.cpp's best setting, {}", name(best)),
            self.against("foretoken-auto", best),
        ));
        lines.extend(of(
            format!("foretoken-plain / llama.cpp plain, {}", name(plain)),
            self.against("foretoken-plain", plain),
        ));
        lines.extend(self.other_prompts());
        lines
    }

    /// Prompts that not every program read as the same number of tokens.
    pub fn other_prompts(&self) -> Option<String> {
        let differs = |run: &&Run| {
            self.same(run, 0).is_some_and(|plain| plain.reading.prompt_tokens != run.reading.prompt_tokens)
        };
        let run = self.runs.iter().find(differs)?;
        Some(format!(
            "warning: {} reads prompt {} as {} tokens, {} as another number",
            self.methods[run.method].0, self.prompts[run.prompt].id, run.reading.prompt_tokens, self.methods[0].0,
        ))
    }

    fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = Vec::new();
        for prompt in &self.prompts {
            if !kinds.contains(&prompt.kind.as_str()) {
                kinds.push(&prompt.kind);
            }
        }
        kinds
    }

    /// The run of another method on the same prompt in the same repeat.
    fn same(&self, run: &Run, method: usize) -> Option<&Run> {
        self.runs.iter().find(|r| r.method == method && r.prompt == run.prompt && r.repeat == run.repeat)
    }

    fn runs_of(&self, method: usize, kinds: &[&str]) -> Vec<&Run> {
        let is_wanted = |run: &&Run| run.method == method && kinds.contains(&self.prompts[run.prompt].kind.as_str());
        self.runs.iter().filter(is_wanted).collect()
    }

    /// Tokens/s: the median of each kind, and over kinds the geometric mean.
    fn speed(&self, method: usize, kinds: &[&str]) -> Option<f64> {
        let of_kind = |kind: &&str| {
            let speeds: Vec<f64> = self.runs_of(method, &[kind]).iter().map(|run| run.reading.speed()).collect();
            median(&speeds)
        };
        geometric_mean(&kinds.iter().map(of_kind).collect::<Option<Vec<f64>>>()?)
    }

    /// One method's speed over another's.
    fn ratio(&self, method: usize, over: usize, kinds: &[&str]) -> Option<Ratio> {
        let of_run = |run: &&Run| Some(Quotient::from(run.reading.speed() / self.same(run, over)?.reading.speed()));
        let of_kind = |kind: &&str| -> Kind {
            let runs = self.runs_of(method, &[kind]);
            let of_prompt = |prompt| runs.iter().filter(|run| run.prompt == prompt).filter_map(of_run).collect();
            (0..self.prompts.len()).map(of_prompt).filter(|ratios: &Vec<_>| !ratios.is_empty()).collect()
        };
        let ratios: Vec<Kind> = kinds.iter().map(of_kind).collect();
        let medians: Option<Vec<f64>> = ratios.iter().map(|kind| median(&wholes(kind))).collect();
        Some((geometric_mean(&medians?)?, interval(&ratios, BOOTSTRAP_SEED)))
    }
}

/// Any fixed number; the same table from the same runs.
const BOOTSTRAP_SEED: u64 = 1;

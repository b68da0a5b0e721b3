//! Training heads (Cai et al., arXiv 2401.10774, §2.2.1, "Medusa-1"): the target is frozen, and only sees to it that
//! hidden states are there. Called by `prepare medusa`; it knows neither models nor texts, only numbers and tokens.
//!
//! Every W and b starts at zero: h + SiLU(0) = h, so a head begins as the target's own guess of the *next* token, and an
//! output matrix of its own begins as the target's. The loss is Σ_k λ_k · cross-entropy of head k with λ_k = 0.8^k. No
//! parameter is shared by two heads and AdamW takes no notice of a factor on the loss, so λ decides how the sum is shown
//! and hardly what is learnt; and the best state is kept for each head by itself.
//!
//! Heads are trained side by side, a thread for each as far as there are processors; each thread needs a matrix of
//! batch × n_vocab. Parameters take 16 bytes each: the value, two moments, and the best value so far. The gradients are
//! written out: there is one kind of layer, and tests hold them against differences of the loss.
//!
//! The same seed and samples give the same heads with the same build. A run that is stopped writes a checkpoint and can
//! be resumed; it then ends as if it had not been stopped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{Array2, Axis};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::format::{self, Description, HeadsError, Part, Sizes, MAX_BLOCKS, MAX_HEADS};
use super::samples::Samples;
use crate::gguf::{GgufError, GgufFile, GgufWriter, TensorType};

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Heads.
    pub heads: usize,
    /// Blocks of each head.
    pub blocks: usize,
    /// Whether each head gets an output matrix of its own.
    pub own_output: bool,
    /// How often every sample is seen.
    pub epochs: f32,
    /// Samples of one step.
    pub batch: usize,
    /// The highest learning rate.
    pub learning_rate: f32,
    /// Share of the steps in which the learning rate grows to its highest; afterwards it falls as a cosine does, to 0.
    pub warm_up: f32,
    /// AdamW's decay of W, which draws a head towards the identity.
    pub weight_decay: f32,
    /// Share of the text that is held out to judge by.
    pub held_out: f32,
    /// Steps from one judgement, and checkpoint, to the next.
    pub judge_every: usize,
    /// Fixes the order of the samples and what is held out.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            heads: 4,
            blocks: 1,
            own_output: false,
            epochs: 4.0,
            batch: 128,
            learning_rate: 1e-3,
            warm_up: 0.1,
            weight_decay: 0.01,
            held_out: 0.05,
            judge_every: 200,
            seed: 0,
        }
    }
}

/// How well a head guesses held-out tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Cross-entropy, in nats.
    pub loss: f32,
    /// Share of tokens that were its likeliest.
    pub top1: f32,
    /// Share of tokens among its five likeliest.
    pub top5: f32,
}

/// Where a training is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The loss over all heads of the steps since the last report; `None` before the first step.
    pub loss: Option<f32>,
    /// Each head as it is now, on what is held out.
    pub heads: Vec<Score>,
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether it ran to its end.
    pub finished: bool,
    /// Steps done.
    pub step: usize,
    /// Each head at its best.
    pub best: Vec<Score>,
}

/// Why heads cannot be trained. One line: the culprit and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum TrainError {
    #[error(
        "the text is too short to train on: {usable} tokens can be used, {needs} or more are needed; give more text"
    )]
    TooShort { usable: usize, needs: usize },
    #[error("{0}")]
    Options(String),
    #[error("{0}")]
    Input(String),
    #[error("the training diverged at step {0}; take a lower learning rate")]
    Diverged(usize),
    #[error("`{}` is no checkpoint of this training ({difference}); use the same options and text, or start afresh", path.display())]
    OtherTraining { path: PathBuf, difference: String },
    #[error(transparent)]
    File(#[from] GgufError),
    #[error(transparent)]
    Heads(#[from] HeadsError),
    #[error("hidden states cannot be kept on disk: {0}")]
    States(#[from] std::io::Error),
}

/// The checkpoint at `path`, of whatever training. To be asked for before the hidden states, which take longest.
///
/// # Errors
/// It cannot be read, or is no checkpoint.
pub fn checkpoint(path: &Path) -> Result<GgufFile, TrainError> {
    let file = GgufFile::open(path)?;
    if file.architecture().is_none_or(|architecture| architecture != CHECKPOINT) {
        return Err(TrainError::OtherTraining { path: path.into(), difference: "it is something else".into() });
    }
    file.check()?;
    Ok(file)
}

/// A training: heads, what they are trained on, and how far it is.
pub struct Training<'a> {
    samples: &'a Samples,
    options: Options,
    n_vocab: usize,
    /// The target's output matrix; with heads that have their own, only where those begin.
    output: Array2<f32>,
    heads: Vec<Head>,
    train: Vec<u32>,
    held_out: Vec<u32>,
    step: usize,
    fingerprint: u64,
}

impl<'a> Training<'a> {
    /// Begin. `output` is the target's output matrix, a row of n_embd numbers for each token of the vocabulary.
    ///
    /// # Errors
    /// An option is out of range, the samples are too few, or do not go with the matrix.
    pub fn new(samples: &'a Samples, output: Vec<f32>, options: Options) -> Result<Training<'a>, TrainError> {
        options.check()?;
        let n_embd = samples.n_embd();
        let n_vocab = output.len() / n_embd.max(1);
        if n_vocab == 0 || output.len() != n_vocab * n_embd {
            return Err(TrainError::Input(format!(
                "an output matrix of {} numbers is not {n_embd} wide",
                output.len()
            )));
        }
        if let Some(token) = samples.tokens().iter().find(|&&token| token as usize >= n_vocab) {
            return Err(TrainError::Input(format!("token {token} is not among the target's {n_vocab}")));
        }
        let shuffle = |n| {
            let mut all: Vec<usize> = (0..n).collect();
            shuffle(&mut all, options.seed, u64::MAX);
            all
        };
        let (train, mut held_out) = samples.split(options.heads + 1, options.held_out, shuffle)?;
        // Evenly spaced ones tell as much as all of them.
        let every = held_out.len().div_ceil(MOST_HELD_OUT);
        held_out = held_out.into_iter().step_by(every).collect();
        let spaced = output.iter().step_by(output.len().div_ceil(4096));
        let numbers = [n_embd as u64, n_vocab as u64, samples.fingerprint()].into_iter();
        let fingerprint = hash(numbers.chain(spaced.map(|x| u64::from(x.to_bits()))).chain(options.numbers()));
        let output = matrix(output, n_vocab, n_embd)?;
        let heads = (0..options.heads).map(|_| Head::new(&output, &options)).collect();
        Ok(Training { samples, options, n_vocab, output, heads, train, held_out, step: 0, fingerprint })
    }

    /// Go on where the training that wrote the checkpoint at `path` was stopped.
    ///
    /// # Errors
    /// It cannot be read, or is one of another training.
    pub fn resume(&mut self, path: &Path) -> Result<(), TrainError> {
        let other = |difference: &str| TrainError::OtherTraining { path: path.into(), difference: difference.into() };
        let file = checkpoint(path)?;
        if file.u64(FINGERPRINT) != Some(self.fingerprint) {
            return Err(other("its options or its text differ"));
        }
        let steps = self.options.steps(self.train.len());
        let step = file.u64(STEP).and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= steps);
        let best = file.floats(BEST).filter(|numbers| numbers.len() == 3 * self.heads.len());
        let (Some(step), Some(best)) = (step, best) else { return Err(other("it is damaged")) };
        for (k, (head, best)) in self.heads.iter_mut().zip(best.chunks_exact(3)).enumerate() {
            head.best = Score { loss: best[0], top1: best[1], top5: best[2] };
            for (i, parameter) in head.parameters.iter_mut().enumerate() {
                let n = parameter.best.len();
                let read = |what: &str| {
                    let tensor = file.tensor(&format!("{k}.{i}.{what}")).filter(|t| t.kind == TensorType::F32);
                    let bytes = tensor.and_then(|tensor| file.data(tensor)).filter(|bytes| bytes.len() == 4 * n);
                    let numbers = bytes?.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
                    Some(numbers.collect::<Vec<f32>>())
                };
                let [Some(value), Some(m), Some(v), Some(best)] = STATE.map(read) else {
                    return Err(other("it is damaged"));
                };
                parameter.value.iter_mut().zip(value).for_each(|(x, value)| *x = value);
                (parameter.m, parameter.v, parameter.best) = (m, v, best);
            }
        }
        self.step = step;
        Ok(())
    }

    /// Train until the end or until `cancel` is set. `checkpoint` is written at every judgement and when cancelled;
    /// `progress` is told at every judgement.
    ///
    /// # Errors
    /// The training diverged, or the checkpoint cannot be written.
    pub fn run(
        &mut self,
        checkpoint: Option<&Path>,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Outcome, TrainError> {
        let steps = self.options.steps(self.train.len());
        let (mut sum, mut since) = (0.0, 0);
        let mut order = Order::default();
        if self.step == 0 {
            self.judge(None, steps, progress)?;
        }
        while self.step < steps && !cancel.load(Ordering::Relaxed) {
            let rows = order.batch(self);
            sum += self.learn(&rows, steps)?;
            (since, self.step) = (since + 1, self.step + 1);
            if self.step.is_multiple_of(self.options.judge_every) || self.step == steps {
                self.judge(Some(sum / since as f32), steps, progress)?;
                (sum, since) = (0.0, 0);
                checkpoint.map_or(Ok(()), |path| self.write_checkpoint(path))?;
            }
        }
        let finished = self.step == steps;
        if !finished {
            checkpoint.map_or(Ok(()), |path| self.write_checkpoint(path))?;
        }
        Ok(Outcome { finished, step: self.step, best: self.heads.iter().map(|head| head.best).collect() })
    }

    /// Write the heads, each at its best so far, to `path`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: &Path, target: &str, tokenizer: u64) -> Result<u64, TrainError> {
        let Options { heads, blocks, own_output, .. } = self.options;
        let sizes = Sizes { heads, blocks, n_embd: self.samples.n_embd(), n_vocab: self.n_vocab, own_output };
        let numbers = |part: Part| {
            let (head, place) = match part {
                Part::Weight { head, block } => (head, 2 * block),
                Part::Bias { head, block } => (head, 2 * block + 1),
                Part::Output { head } => (head, 2 * blocks),
            };
            let parameter = self.heads.get(head).and_then(|head| head.parameters.get(place));
            Ok(parameter.map(|parameter| parameter.best.clone()).unwrap_or_default())
        };
        format::write(path, &Description { sizes, target: target.to_owned(), tokenizer }, numbers)
    }

    /// One step of AdamW; returns the loss over all heads.
    fn learn(&mut self, rows: &[u32], steps: usize) -> Result<f32, TrainError> {
        let states = self.states(rows)?;
        let (samples, options, shared, step) = (self.samples, &self.options, &self.output, self.step);
        let rate = options.rate(step, steps);
        let losses = each(&mut self.heads, |k, head| {
            let labels: Vec<usize> = rows.iter().map(|&row| label(samples, row, k)).collect();
            let (kept, end) = head.forward(&states, options.blocks);
            let (score, mut gradient) = judged(&end, head.output(shared, options.blocks), &labels);
            if !score.loss.is_finite() {
                return Err(TrainError::Diverged(step));
            }
            gradient *= lambda(k) / rows.len() as f32;
            let gradients = head.backward(&kept, &end, &gradient, shared, options.blocks);
            for (parameter, gradient) in head.parameters.iter_mut().zip(&gradients) {
                parameter.update(gradient, rate, options.weight_decay, step + 1);
            }
            Ok(lambda(k) * score.loss)
        })?;
        Ok(losses.iter().sum())
    }

    /// How the heads do on what is held out; each is kept if it never did better.
    fn judge(
        &mut self,
        loss: Option<f32>,
        steps: usize,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), TrainError> {
        let mut batches = Vec::new();
        for rows in self.held_out.chunks(self.options.batch) {
            batches.push((rows, self.states(rows)?));
        }
        let (samples, options, shared, n) = (self.samples, &self.options, &self.output, self.held_out.len());
        let heads = each(&mut self.heads, |k, head| {
            let mut sum = Score::default();
            for (rows, states) in &batches {
                let part = rows.len() as f32 / n as f32;
                let labels: Vec<usize> = rows.iter().map(|&row| label(samples, row, k)).collect();
                let (_, end) = head.forward(states, options.blocks);
                let (score, _) = judged(&end, head.output(shared, options.blocks), &labels);
                sum.loss += score.loss * part;
                sum.top1 += score.top1 * part;
                sum.top5 += score.top5 * part;
            }
            if sum.loss < head.best.loss {
                head.best = sum;
                head.parameters.iter_mut().for_each(|parameter| parameter.best = parameter.numbers());
            }
            Ok(sum)
        })?;
        progress(&Progress { step: self.step, steps, loss, heads });
        Ok(())
    }

    fn states(&self, rows: &[u32]) -> Result<Array2<f32>, TrainError> {
        let mut states = Vec::with_capacity(rows.len() * self.samples.n_embd());
        rows.iter().for_each(|&row| self.samples.state(row as usize, &mut states));
        matrix(states, rows.len(), self.samples.n_embd())
    }

    fn write_checkpoint(&self, path: &Path) -> Result<(), TrainError> {
        let mut writer = GgufWriter::new();
        writer.set("general.architecture", CHECKPOINT);
        writer.set(FINGERPRINT, self.fingerprint);
        writer.set(STEP, self.step as u64);
        let best: Vec<f32> = self.heads.iter().flat_map(|h| [h.best.loss, h.best.top1, h.best.top5]).collect();
        writer.set(BEST, &best[..]);
        let mut places = Vec::new();
        for (k, head) in self.heads.iter().enumerate() {
            for (i, parameter) in head.parameters.iter().enumerate() {
                for what in STATE {
                    writer.tensor(&format!("{k}.{i}.{what}"), TensorType::F32, &[parameter.best.len() as u64]);
                    places.push((parameter, what));
                }
            }
        }
        let mut places = places.into_iter();
        writer.write(path, |_, out| {
            let Some((parameter, what)) = places.next() else { return Ok(()) };
            let value;
            let numbers = match what {
                "m" => &parameter.m,
                "v" => &parameter.v,
                "best" => &parameter.best,
                _ => {
                    value = parameter.numbers();
                    &value
                }
            };
            out.write_all(&numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
        })?;
        Ok(())
    }
}

impl Options {
    /// Refuse what is out of range. Those that `prepare medusa` takes are named as it does.
    ///
    /// # Errors
    /// An option is out of range.
    pub fn check(&self) -> Result<(), TrainError> {
        let whole = |name: &str, n: usize, most: usize| match (1..=most).contains(&n) {
            true => Ok(()),
            false => Err(TrainError::Options(format!("{name} = {n} is out of range; it goes from 1 to {most}"))),
        };
        let real = |name: &str, x: f32, least: f32, most: f32| match (least..=most).contains(&x) {
            true => Ok(()),
            false => Err(TrainError::Options(format!("{name} = {x} is out of range; it goes from {least} to {most}"))),
        };
        whole("--heads", self.heads, MAX_HEADS)?;
        whole("--blocks", self.blocks, MAX_BLOCKS)?;
        whole("--batch", self.batch, 1 << 16)?;
        whole("--report-every", self.judge_every, 1_000_000)?;
        real("--epochs", self.epochs, 0.01, 1e4)?;
        real("--learning-rate", self.learning_rate, 1e-8, 1.0)?;
        real("warm_up", self.warm_up, 0.0, 1.0)?;
        real("weight_decay", self.weight_decay, 0.0, 1.0)?;
        real("--held-out", self.held_out, 0.001, 0.9)
    }

    /// All of them, as numbers.
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let Options { heads, blocks, own_output, epochs, batch, .. } = *self;
        let Options { learning_rate, warm_up, weight_decay, held_out, judge_every, seed, .. } = *self;
        let whole = [heads, blocks, usize::from(own_output), batch, judge_every].map(|n| n as u64);
        let real = [epochs, learning_rate, warm_up, weight_decay, held_out].map(|x| u64::from(x.to_bits()));
        whole.into_iter().chain(real).chain([seed])
    }

    fn steps(&self, samples: usize) -> usize {
        let batch = self.batch.min(samples).max(1);
        ((samples as f32 * self.epochs / batch as f32).ceil() as usize).max(1)
    }

    fn rate(&self, step: usize, steps: usize) -> f32 {
        let done = (step as f32 + 0.5) / steps as f32;
        match done < self.warm_up {
            true => self.learning_rate * done / self.warm_up,
            false => {
                let fallen = (done - self.warm_up) / (1.0 - self.warm_up).max(f32::MIN_POSITIVE);
                self.learning_rate * 0.5 * (1.0 + (std::f32::consts::PI * fallen).cos())
            }
        }
    }
}

/// The parameters of a head: W and b of each block, then its own output matrix if it has one.
struct Head {
    parameters: Vec<Parameter>,
    best: Score,
}

impl Head {
    fn new(output: &Array2<f32>, options: &Options) -> Head {
        let n_embd = output.ncols();
        let mut parameters = Vec::new();
        for _ in 0..options.blocks {
            parameters.push(Parameter::new(Array2::zeros((n_embd, n_embd)), true));
            parameters.push(Parameter::new(Array2::zeros((1, n_embd)), false));
        }
        if options.own_output {
            parameters.push(Parameter::new(output.clone(), false));
        }
        Head { parameters, best: Score { loss: f32::INFINITY, ..Score::default() } }
    }

    /// For each block the state before it and z = W h + b; and the state after the last.
    fn forward(&self, states: &Array2<f32>, blocks: usize) -> (Vec<[Array2<f32>; 2]>, Array2<f32>) {
        let (mut h, mut kept) = (states.clone(), Vec::with_capacity(blocks));
        for block in self.parameters.chunks_exact(2).take(blocks) {
            let z = h.dot(&block[0].value.t()) + &block[1].value;
            let next = &h + &z.mapv(|z| z * sigmoid(z));
            kept.push([std::mem::replace(&mut h, next), z]);
        }
        (kept, h)
    }

    /// The loss's gradient for each parameter, from that at the logits.
    fn backward(
        &self,
        kept: &[[Array2<f32>; 2]],
        end: &Array2<f32>,
        logits: &Array2<f32>,
        shared: &Array2<f32>,
        blocks: usize,
    ) -> Vec<Array2<f32>> {
        let mut gradients = Vec::with_capacity(self.parameters.len());
        if self.parameters.len() > 2 * blocks {
            gradients.push(logits.t().dot(end));
        }
        let mut above = logits.dot(self.output(shared, blocks));
        for (block, [h, z]) in self.parameters.chunks_exact(2).zip(kept).rev() {
            let slope = z.mapv(|z| sigmoid(z) * (1.0 + z * (1.0 - sigmoid(z)))); // of SiLU
            let at_z = &above * &slope;
            gradients.push(at_z.sum_axis(Axis(0)).insert_axis(Axis(0)));
            gradients.push(at_z.t().dot(h));
            above += &at_z.dot(&block[0].value);
        }
        gradients.reverse();
        gradients
    }

    fn output<'a>(&'a self, shared: &'a Array2<f32>, blocks: usize) -> &'a Array2<f32> {
        self.parameters.get(2 * blocks).map_or(shared, |own| &own.value)
    }
}

/// Numbers that are learnt, and what AdamW (Loshchilov and Hutter, arXiv 1711.05101) keeps of them.
struct Parameter {
    value: Array2<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    best: Vec<f32>,
    decays: bool,
}

impl Parameter {
    fn new(value: Array2<f32>, decays: bool) -> Parameter {
        let zeros = vec![0.0; value.len()];
        Parameter { best: value.iter().copied().collect(), value, m: zeros.clone(), v: zeros, decays }
    }

    /// Row by row.
    fn numbers(&self) -> Vec<f32> {
        self.value.iter().copied().collect()
    }

    /// The `t`-th step, from 1.
    fn update(&mut self, gradient: &Array2<f32>, rate: f32, decay: f32, t: usize) {
        let (b1, b2, epsilon) = (0.9f32, 0.999f32, 1e-8);
        let t = t.min(1 << 30) as i32;
        let (m_scale, v_scale) = (1.0 / (1.0 - b1.powi(t)), 1.0 / (1.0 - b2.powi(t)));
        let keep = if self.decays { 1.0 - rate * decay } else { 1.0 };
        for (((x, g), m), v) in self.value.iter_mut().zip(gradient).zip(&mut self.m).zip(&mut self.v) {
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *x = *x * keep - rate * (*m * m_scale) / ((*v * v_scale).sqrt() + epsilon);
        }
    }
}

/// The samples in the order of an epoch, kept until it is over.
#[derive(Default)]
struct Order {
    epoch: Option<usize>,
    rows: Vec<u32>,
}

impl Order {
    /// The samples of the training's next step. They follow from the step alone, so a resumed training sees the same.
    fn batch(&mut self, training: &Training<'_>) -> Vec<u32> {
        let (n, batch) = (training.train.len(), training.options.batch.min(training.train.len()));
        let per_epoch = (n / batch).max(1);
        let (epoch, start) = (training.step / per_epoch, training.step % per_epoch * batch);
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.rows.clone_from(&training.train);
            shuffle(&mut self.rows, training.options.seed, epoch as u64);
        }
        self.rows[start..(start + batch).min(n)].to_vec()
    }
}

/// How well `end`, the states after the last block, times `output` guess the labels; and softmax − one-hot, a row for
/// each state.
fn judged(end: &Array2<f32>, output: &Array2<f32>, labels: &[usize]) -> (Score, Array2<f32>) {
    let mut logits = end.dot(&output.t());
    let mut score = Score::default();
    let part = 1.0 / labels.len().max(1) as f32;
    for (mut row, &label) in logits.rows_mut().into_iter().zip(labels) {
        let mine = row[label];
        let better = row.iter().filter(|&&x| x > mine).count();
        score.top1 += part * f32::from(u8::from(better == 0));
        score.top5 += part * f32::from(u8::from(better < 5));
        let most = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        row.mapv_inplace(|x| (x - most).exp());
        let sum = row.sum();
        score.loss += part * (sum.ln() + most - mine);
        row.mapv_inplace(|x| x / sum);
        row[label] -= 1.0;
    }
    (score, logits)
}

/// Do the same with every head, on as many threads as there are processors. How many makes no difference to the result.
fn each<T: Send>(
    heads: &mut [Head],
    work: impl Fn(usize, &mut Head) -> Result<T, TrainError> + Sync,
) -> Result<Vec<T>, TrainError> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let share = heads.len().div_ceil(threads).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (i, heads) in heads.chunks_mut(share).enumerate() {
            running.push(scope.spawn(move || -> Result<Vec<T>, TrainError> {
                heads.iter_mut().enumerate().map(|(j, head)| work(i * share + j, head)).collect()
            }));
        }
        let mut all = Vec::new();
        for thread in running {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}

fn matrix(numbers: Vec<f32>, rows: usize, row: usize) -> Result<Array2<f32>, TrainError> {
    Array2::from_shape_vec((rows, row), numbers).map_err(|e| TrainError::Input(e.to_string()))
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The token that head `k` should guess from the state at `row`. [`Samples::split`] gives rows that have one.
fn label(samples: &Samples, row: u32, k: usize) -> usize {
    samples.tokens()[row as usize + k + 2] as usize
}

/// The weight of head `k` in the loss.
fn lambda(k: usize) -> f32 {
    0.8f32.powi(k as i32)
}

fn shuffle<T>(items: &mut [T], seed: u64, stream: u64) {
    let mut random = StdRng::seed_from_u64(hash([seed, stream].into_iter()));
    for i in (1..items.len()).rev() {
        items.swap(i, random.random_range(0..=i));
    }
}

/// FNV-1a over numbers.
pub(super) fn hash(numbers: impl Iterator<Item = u64>) -> u64 {
    let bytes = numbers.flat_map(u64::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

const CHECKPOINT: &str = "medusa-training";
const FINGERPRINT: &str = "training.fingerprint";
const STEP: &str = "training.step";
const BEST: &str = "training.best";
/// What is kept of each parameter.
const STATE: [&str; 4] = ["value", "m", "v", "best"];

/// Held-out samples that heads are judged by, at most.
const MOST_HELD_OUT: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs;

    use foretoken_drafter::Token;

    use super::super::format::HeadsFile;
    use super::super::samples::Collecting;
    use super::*;

    const V: usize = 8;
    const D: usize = 3 * V;

    /// A state that tells the next three tokens apart from each other.
    fn state(next: &[Token]) -> Vec<f32> {
        let mut state = vec![0.0; D];
        next.iter().take(3).enumerate().for_each(|(place, &token)| state[place * V + token as usize] = 1.0);
        state
    }

    /// The target reads the next token off the state's first part.
    fn output() -> Vec<f32> {
        (0..V * D).map(|i| if i % D == i / D { 4.0 } else { 0.0 }).collect()
    }

    /// Random texts: every token is as likely as any other, so that only the states tell what comes.
    fn samples(folder: &Path) -> Samples {
        let mut random = StdRng::seed_from_u64(5);
        let mut collecting = Collecting::new(D, &folder.join("heads.gguf")).unwrap();
        for document in 0..20 {
            let text: Vec<Token> = (0..100).map(|_| random.random_range(0..V as Token)).collect();
            let states: Vec<f32> = (0..text.len()).flat_map(|i| state(&text[i + 1..])).collect();
            collecting.push(document, &text, &states).unwrap();
        }
        collecting.finish().unwrap()
    }

    fn options() -> Options {
        Options {
            heads: 2,
            epochs: 6.0,
            batch: 32,
            learning_rate: 0.02,
            judge_every: 40,
            held_out: 0.1,
            ..Options::default()
        }
    }

    fn trained(samples: &Samples, options: &Options) -> (Outcome, Vec<Progress>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut training = Training::new(samples, output(), options.clone()).unwrap();
        let mut told = Vec::new();
        let outcome = training.run(None, &AtomicBool::new(false), &mut |p| told.push(p.clone())).unwrap();
        training.save(&folder.path().join("h.gguf"), "toy", 7).unwrap();
        (outcome, told, folder)
    }

    /// What the format says of a head, in plain loops.
    fn evaluated(file: &HeadsFile, head: usize, state: &[f32]) -> usize {
        let product = |matrix: &[f32], h: &[f32]| -> Vec<f32> {
            matrix.chunks(D).map(|row| row.iter().zip(h).map(|(a, b)| a * b).sum()).collect()
        };
        let mut h = state.to_vec();
        for block in 0..file.description().sizes.blocks {
            let w = file.data(Part::Weight { head, block }).unwrap().to_f32();
            let b = file.data(Part::Bias { head, block }).unwrap().to_f32();
            let z: Vec<f32> = product(&w, &h).iter().zip(&b).map(|(z, b)| z + b).collect();
            h.iter_mut().zip(z).for_each(|(h, z)| *h += z / (1.0 + (-z).exp()));
        }
        let own = file.data(Part::Output { head }).map(|data| data.to_f32());
        let logits = product(&own.unwrap_or_else(output), &h);
        (0..V).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
    }

    #[test]
    fn heads_learn_what_the_states_tell() {
        let folder = tempfile::tempdir().unwrap();
        let samples = samples(folder.path());
        for (blocks, own_output) in [(1, false), (2, false), (1, true)] {
            let (outcome, told, made) = trained(&samples, &Options { blocks, own_output, ..options() });
            assert!(outcome.finished && told.len() > 3);
            let (first, last) = (&told[0], &told[told.len() - 1]);
            assert_eq!((first.step, first.loss, last.step), (0, None, last.steps));
            for k in 0..2 {
                // Chance is 1 in 8, and that is how a head begins: with the next token's guess.
                assert!(first.heads[k].top1 < 0.25, "{first:?}");
                assert!(outcome.best[k].top1 > 0.95 && outcome.best[k].top5 >= outcome.best[k].top1, "{outcome:?}");
                assert!(outcome.best[k].loss < 0.3 * first.heads[k].loss, "{outcome:?}");
            }
            let file = HeadsFile::open(&made.path().join("h.gguf")).unwrap();
            file.check(D, V, 7).unwrap();
            let right = (0..V as Token).filter(|&a| {
                let state = state(&[(a + 3) % 8, a, (a + 5) % 8]);
                evaluated(&file, 0, &state) == a as usize && evaluated(&file, 1, &state) == (a as usize + 5) % 8
            });
            assert!(right.count() >= 7, "the file says what was learnt");
        }
    }

    #[test]
    fn a_resumed_training_ends_as_one_that_was_not_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let samples = samples(folder.path());
        let (_, _, whole) = trained(&samples, &options());
        let (checkpoint, path) = (folder.path().join("c"), folder.path().join("h.gguf"));
        let mut stops = 0;
        loop {
            let mut training = Training::new(&samples, output(), options()).unwrap();
            if stops > 0 {
                training.resume(&checkpoint).unwrap();
            }
            let (cancel, before) = (AtomicBool::new(false), training.step);
            let mut at = |p: &Progress| cancel.store(p.step > before + 50, Ordering::Relaxed);
            let outcome = training.run(Some(&checkpoint), &cancel, &mut at).unwrap();
            training.save(&path, "toy", 7).unwrap();
            if outcome.finished {
                break;
            }
            assert!(outcome.step > before);
            stops += 1;
        }
        assert!(stops >= 2);
        assert_eq!(fs::read(&path).unwrap(), fs::read(whole.path().join("h.gguf")).unwrap());
    }

    #[test]
    fn cancelling_keeps_the_best_so_far() {
        let folder = tempfile::tempdir().unwrap();
        let samples = samples(folder.path());
        let mut training = Training::new(&samples, output(), options()).unwrap();
        let cancel = AtomicBool::new(false);
        let mut told = Vec::new();
        let mut at = |p: &Progress| {
            told.push(p.clone());
            cancel.store(p.step >= 80, Ordering::Relaxed);
        };
        let outcome = training.run(None, &cancel, &mut at).unwrap();
        assert!(!outcome.finished && outcome.step == 80);
        let least = told.iter().map(|p| p.heads[0].loss).fold(f32::INFINITY, f32::min);
        assert_eq!(outcome.best[0].loss, least);
        for head in &mut training.heads {
            head.parameters.iter_mut().for_each(|p| p.value.fill(9.0));
        }
        training.judge(None, 1, &mut |p| assert!(p.heads[0].loss > least)).unwrap();
        assert_eq!(training.heads[0].best.loss, least);
        training.save(&folder.path().join("h.gguf"), "toy", 7).unwrap();
        let file = HeadsFile::open(&folder.path().join("h.gguf")).unwrap();
        let weights = file.data(Part::Weight { head: 0, block: 0 }).unwrap().to_f32();
        assert!(weights.iter().any(|&w| w != 0.0) && weights.iter().all(|&w| w != 9.0));
    }

    #[test]
    fn the_gradient_at_the_logits_is_that_of_the_loss() {
        let identity = Array2::eye(3);
        let logits = [0.3, -1.0, 2.0, 0.1, 0.2, -0.4];
        let loss = |logits: &[f32]| judged(&matrix(logits.to_vec(), 2, 3).unwrap(), &identity, &[1, 0]);
        let (_, gradient) = loss(&logits);
        let gradient: Vec<f32> = gradient.iter().copied().collect();
        for i in 0..logits.len() {
            let moved = |by: f32| {
                let mut logits = logits;
                logits[i] += by;
                loss(&logits).0.loss
            };
            let slope = (moved(0.01) - moved(-0.01)) / 0.02;
            assert!((slope - gradient[i] / 2.0).abs() < 1e-3, "{i}: {slope} and {}", gradient[i] / 2.0);
        }
    }

    #[test]
    fn the_gradients_of_a_head_are_those_of_the_loss() {
        let options = Options { blocks: 2, own_output: true, ..Options::default() };
        let mut random = StdRng::seed_from_u64(1);
        let mut numbers =
            |rows, row| matrix((0..rows * row).map(|_| random.random_range(-1.0..1.0)).collect(), rows, row).unwrap();
        let (output, states) = (numbers(3, 4), numbers(5, 4));
        let mut head = Head::new(&output, &options);
        for parameter in &mut head.parameters {
            parameter.value = numbers(parameter.value.nrows(), parameter.value.ncols());
        }
        let labels = [0, 1, 2, 1, 0];
        let loss = |head: &Head| judged(&head.forward(&states, 2).1, head.output(&output, 2), &labels);
        let (kept, end) = head.forward(&states, 2);
        let gradients = head.backward(&kept, &end, &(loss(&head).1 / 5.0), &output, 2);
        assert_eq!(gradients.len(), head.parameters.len());
        for (i, gradient) in gradients.iter().enumerate() {
            assert_eq!(gradient.dim(), head.parameters[i].value.dim());
            for ((row, column), &expected) in gradient.indexed_iter() {
                let mut moved = |by: f32| {
                    head.parameters[i].value[(row, column)] += by;
                    let moved = loss(&head).0.loss;
                    head.parameters[i].value[(row, column)] -= by;
                    moved
                };
                let slope = (moved(0.01) - moved(-0.01)) / 0.02;
                assert!((slope - expected).abs() < 2e-3, "parameter {i} at {row}, {column}: {slope} and {expected}");
            }
        }
    }

    #[test]
    fn a_checkpoint_of_another_training_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let samples = samples(folder.path());
        let path = folder.path().join("c");
        let training = |options| Training::new(&samples, output(), options).unwrap();
        training(options()).write_checkpoint(&path).unwrap();
        training(options()).resume(&path).unwrap();
        let says = |options: Options| training(options).resume(&path).unwrap_err().to_string();
        assert!(says(Options { seed: 1, ..options() }).contains("its options or its text differ"));
        assert!(says(Options { heads: 1, ..options() }).contains("its options or its text differ"));
        let sound = fs::read(&path).unwrap();
        for n in (0..sound.len()).step_by(501) {
            fs::write(&path, &sound[..n]).unwrap();
            assert!(training(options()).resume(&path).is_err(), "cut to {n} bytes");
        }
        fs::write(&path, b"hello").unwrap();
        assert!(says(options()).contains("not a GGUF file"));
    }

    #[test]
    fn options_out_of_range_and_foreign_samples_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let samples = samples(folder.path());
        let says = |output, options| Training::new(&samples, output, options).err().unwrap().to_string();
        assert!(says(output(), Options { heads: 0, ..options() }).contains("--heads = 0 is out of range"));
        assert!(says(output(), Options { learning_rate: f32::NAN, ..options() }).contains("--learning-rate = NaN"));
        assert!(says(vec![0.0; D * V + 1], options()).contains("is not 24 wide"));
        assert!(says(vec![0.0; D * 2], options()).contains("is not among the target's 2"));
        assert!(says(output(), Options { heads: 64, held_out: 0.9, ..options() }).contains("too short"));
        let wild = Options { learning_rate: 1.0, ..options() };
        let mut training = Training::new(&samples, vec![f32::MAX; D * V], wild).unwrap();
        let error = training.run(None, &AtomicBool::new(false), &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("lower learning rate"), "{error}");
    }
}

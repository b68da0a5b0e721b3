//! Deriving a smaller file from a model: another precision, or some of its layers only.
//!
//! llama.cpp's own call takes as long as it takes and cannot be stopped. So a program that has the hidden subcommand
//! for it ([`use_child`]) runs it in a child process, which shows how far it is, which Ctrl-C ends, and which ends with
//! its parent; any other runs it in place. It never writes over its input, and a file appears under its name only when
//! complete.

use std::{
    ffi::CString,
    fmt, fs, io,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
    sync::mpsc,
    sync::OnceLock,
    time::Duration,
};

use llama_cpp_sys_2 as sys;

use super::gguf::{self, GgufError, GgufFile};

/// What to make of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantize {
    /// How to store the weights.
    pub precision: Precision,
    /// Threads to use; 0: as many as the machine has.
    pub threads: u32,
    /// The layers to keep, ascending from the original's numbering; `None`: all.
    pub layers: Option<Vec<u32>>,
    /// Allow a source that is quantised already. What was lost stays lost.
    pub requantize: bool,
}

/// How weights can be stored without a measured importance matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Precision {
    /// As they are.
    Copy,
    F32,
    Bf16,
    F16,
    Q8_0,
    Q6K,
    Q5KM,
    Q5KS,
    Q5_0,
    Q4KM,
    Q4KS,
    Q4_0,
    Iq4Nl,
    Iq4Xs,
    Q3KM,
    Q2K,
}

/// Why no file was made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum QuantizeError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error("`{}` would be overwritten by its own copy; choose another output", path.display())]
    SameFile { path: PathBuf },
    #[error("`{name}` cannot be made: it needs an importance matrix; use one of {}", names())]
    Importance { name: String },
    #[error("unknown precision `{name}`; use one of {}", names())]
    Unknown { name: String },
    #[error("`{}` is quantised already ({label}); start from its F16 file, or allow requantising", path.display())]
    Quantised { path: PathBuf, label: String },
    #[error("cannot keep layers {layers:?} of `{}`: {what}", path.display())]
    Layers { path: PathBuf, layers: Vec<u32>, what: String },
    #[error("llama.cpp could not make `{}` from `{}`: {reason}", dst.display(), src.display())]
    Failed { src: PathBuf, dst: PathBuf, reason: String },
    #[error("making `{}` was cancelled; nothing was written", dst.display())]
    Cancelled { dst: PathBuf },
}

/// A program that can be started again to do llama.cpp's part.
pub struct Child {
    /// Its subcommand, which takes the arguments of [`convert`].
    pub subcommand: &'static str,
    /// Set when the user wants to cancel.
    pub cancelled: &'static AtomicBool,
    /// Called before a file is made, and when that has ended.
    pub begin: fn(),
    /// See [`begin`](Child::begin).
    pub end: fn(),
    /// Told how many of how many tensors are done.
    pub progress: fn(&Path, usize, usize),
    /// Told, in a line, what the user should know.
    pub tell: fn(&str),
}

static CHILD: OnceLock<Child> = OnceLock::new();

/// From now on llama.cpp's part is done by this very program, started again as `child` says. To be called once, by the
/// program's main function.
pub fn use_child(child: Child) {
    let _ = CHILD.set(child);
}

/// Tell the user something, if a program has said how.
pub(super) fn tell(line: &str) {
    if let Some(child) = CHILD.get() {
        (child.tell)(line);
    }
}

/// Refuse what [`quantize`] would refuse, before any work.
pub fn check(src: &Path, dst: &Path, options: &Quantize) -> Result<(), QuantizeError> {
    let plan = plan(src, dst, options)?;
    drop(gguf::beside(dst)?);
    Ok(gguf::room_for(dst, plan.needs)?)
}

/// Write the model at `src` to `dst` as `options` say. Returns the size of the file made.
pub fn quantize(src: &Path, dst: &Path, options: &Quantize) -> Result<u64, QuantizeError> {
    let Plan { dropped, needs } = plan(src, dst, options)?;
    let _making = Making::begin();
    let temporary = gguf::beside(dst)?;
    gguf::room_for(dst, needs)?;
    let failed = |reason| QuantizeError::Failed { src: src.into(), dst: dst.into(), reason };
    match CHILD.get() {
        None => convert(src, temporary.path(), options, &dropped)?.map_err(|reason| full(dst, failed(reason)))?,
        Some(child) => match in_child(child, src, temporary.path(), dst, options, &dropped) {
            Ok(Ended::Done) => {}
            Ok(Ended::Cancelled) => return Err(QuantizeError::Cancelled { dst: dst.into() }),
            Ok(Ended::Failed(reason)) => return Err(full(dst, failed(reason))),
            Err(e) => return Err(failed(format!("cannot start a child process: {e}"))),
        },
    }
    let made = GgufFile::open(temporary.path()).and_then(|made| made.check().map(|()| made));
    let made = made.map_err(|e| full(dst, e.into()))?;
    let size = made.file_size();
    drop(made); // a mapped file cannot be renamed everywhere
    gguf::publish(temporary, dst)?;
    Ok(size)
}

/// The program knows that a file is being made as long as this lives.
struct Making;

impl Making {
    fn begin() -> Making {
        if let Some(child) = CHILD.get() {
            (child.begin)();
        }
        Making
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(child) = CHILD.get() {
            (child.end)();
        }
    }
}

/// What is to be made.
struct Plan {
    dropped: Vec<i32>,
    /// Bytes, about.
    needs: u64,
}

fn plan(src: &Path, dst: &Path, options: &Quantize) -> Result<Plan, QuantizeError> {
    let file = GgufFile::open(src)?;
    file.check()?;
    let is_source = |dst: PathBuf| file.shards().any(|one| fs::canonicalize(one.path()).is_ok_and(|src| src == dst));
    if fs::canonicalize(dst).is_ok_and(is_source) {
        return Err(QuantizeError::SameFile { path: dst.into() });
    }
    let requantizes = options.precision != Precision::Copy && is_quantised(&file);
    if requantizes && !options.requantize {
        return Err(QuantizeError::Quantised { path: src.into(), label: file.quantisation() });
    }
    let dropped = match &options.layers {
        Some(keep) => dropped_layers(&file, keep).map_err(|what| QuantizeError::Layers {
            path: src.into(),
            layers: keep.clone(),
            what,
        })?,
        None => Vec::new(),
    };
    let needs = estimate(&file, options.precision, &dropped);
    Ok(Plan { dropped, needs })
}

/// About how many bytes a copy takes: small tensors stay as they are.
pub fn estimate(file: &GgufFile, precision: Precision, dropped: &[i32]) -> u64 {
    let is_dropped = |name: &str| dropped.iter().any(|layer| name.starts_with(&format!("blk.{layer}.")));
    let bytes = |tensor: &gguf::Tensor| match precision {
        Precision::Copy => tensor.bytes,
        _ if tensor.shape.len() < 2 || !tensor.name.ends_with("weight") => tensor.bytes,
        _ => (tensor.elements() as f64 * precision.bits() / 8.0) as u64,
    };
    let tensors = || file.shards().flat_map(GgufFile::tensors);
    let header = file.file_size().saturating_sub(tensors().map(|tensor| tensor.bytes).sum());
    header + tensors().filter(|tensor| !is_dropped(&tensor.name)).map(bytes).sum::<u64>()
}

/// llama.cpp does not say that the disk is full.
fn full(dst: &Path, error: QuantizeError) -> QuantizeError {
    match gguf::is_full(dst) {
        true => GgufError::Full { path: dst.into() }.into(),
        false => error,
    }
}

impl Precision {
    /// All of them, most exact first.
    pub const ALL: [Precision; 16] = [
        Precision::Copy,
        Precision::F32,
        Precision::Bf16,
        Precision::F16,
        Precision::Q8_0,
        Precision::Q6K,
        Precision::Q5KM,
        Precision::Q5KS,
        Precision::Q5_0,
        Precision::Q4KM,
        Precision::Q4KS,
        Precision::Q4_0,
        Precision::Iq4Nl,
        Precision::Iq4Xs,
        Precision::Q3KM,
        Precision::Q2K,
    ];

    /// The name in configuration and on the command line.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Bits per weight, about; 0 for a copy.
    pub fn bits(self) -> f64 {
        match self {
            Precision::Copy => 0.0,
            Precision::F32 => 32.0,
            Precision::F16 | Precision::Bf16 => 16.0,
            Precision::Q8_0 => 8.5,
            Precision::Q6K => 6.6,
            Precision::Q5KM | Precision::Q5KS | Precision::Q5_0 => 5.6,
            Precision::Q4KM | Precision::Q4KS | Precision::Q4_0 | Precision::Iq4Nl | Precision::Iq4Xs => 4.7,
            Precision::Q3KM => 3.9,
            Precision::Q2K => 3.0,
        }
    }

    fn row(self) -> (&'static str, sys::llama_ftype) {
        match self {
            Precision::F32 => ("f32", sys::LLAMA_FTYPE_ALL_F32),
            Precision::Copy => ("copy", sys::LLAMA_FTYPE_MOSTLY_F16), // ignored with `only_copy`
            Precision::F16 => ("f16", sys::LLAMA_FTYPE_MOSTLY_F16),
            Precision::Bf16 => ("bf16", sys::LLAMA_FTYPE_MOSTLY_BF16),
            Precision::Q8_0 => ("q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0),
            Precision::Q6K => ("q6_k", sys::LLAMA_FTYPE_MOSTLY_Q6_K),
            Precision::Q5KM => ("q5_k_m", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
            Precision::Q5KS => ("q5_k_s", sys::LLAMA_FTYPE_MOSTLY_Q5_K_S),
            Precision::Q5_0 => ("q5_0", sys::LLAMA_FTYPE_MOSTLY_Q5_0),
            Precision::Q4KM => ("q4_k_m", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
            Precision::Q4KS => ("q4_k_s", sys::LLAMA_FTYPE_MOSTLY_Q4_K_S),
            Precision::Q4_0 => ("q4_0", sys::LLAMA_FTYPE_MOSTLY_Q4_0),
            Precision::Iq4Nl => ("iq4_nl", sys::LLAMA_FTYPE_MOSTLY_IQ4_NL),
            Precision::Iq4Xs => ("iq4_xs", sys::LLAMA_FTYPE_MOSTLY_IQ4_XS),
            Precision::Q3KM => ("q3_k_m", sys::LLAMA_FTYPE_MOSTLY_Q3_K_M),
            Precision::Q2K => ("q2_k", sys::LLAMA_FTYPE_MOSTLY_Q2_K),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = QuantizeError;

    fn from_str(name: &str) -> Result<Precision, QuantizeError> {
        let lower = name.to_ascii_lowercase();
        if let Some(found) = Precision::ALL.into_iter().find(|p| p.name() == lower) {
            return Ok(found);
        }
        let name = name.to_string();
        match ["iq1", "iq2", "iq3", "q2_k_s"].iter().any(|start| lower.starts_with(start)) {
            true => Err(QuantizeError::Importance { name }),
            false => Err(QuantizeError::Unknown { name }),
        }
    }
}

fn names() -> String {
    Precision::ALL.map(Precision::name).join(", ")
}

fn is_quantised(file: &GgufFile) -> bool {
    use gguf::TensorType;
    file.shards()
        .flat_map(GgufFile::tensors)
        .any(|t| ![TensorType::F32, TensorType::F16, TensorType::BF16].contains(&t.kind))
}

/// Whether any of its layers may be kept, not just the first: architectures whose layers are all alike.
pub fn can_keep_any_layers(file: &GgufFile) -> bool {
    PLAIN.contains(&&*file.architecture().unwrap_or_default())
}

/// The complement of `keep`, ascending, as llama.cpp wants it; or why those layers cannot stand alone.
fn dropped_layers(file: &GgufFile, keep: &[u32]) -> Result<Vec<i32>, String> {
    let architecture = file.architecture().unwrap_or_default();
    let layers = file.network("block_count").ok_or("its number of layers is unknown")?;
    if keep.is_empty() || !keep.is_sorted_by(|a, b| a < b) || keep.iter().any(|&layer| layer >= layers) {
        return Err(format!("name each layer once, ascending, from 0 to {}", layers - 1));
    }
    if file.network("nextn_predict_layers").is_some_and(|n| n > 0) {
        return Err("its last layers predict later tokens (MTP) and would be taken for others".into());
    }
    let first = keep.iter().copied().eq(0..keep.len() as u32);
    if !first && !can_keep_any_layers(file) {
        return Err(format!("layers of `{architecture}` differ by position; keep the first ones, 0 to k"));
    }
    let per_layer = |(key, value): (&str, gguf::Value)| match value {
        gguf::Value::Array(array) if key.starts_with(&format!("{architecture}.")) => {
            (array.len() == layers as usize).then(|| key.to_string())
        }
        _ => None,
    };
    match file.entries().find_map(per_layer) {
        Some(key) if keep.len() < layers as usize => Err(format!("`{key}` has one value per layer and cannot be cut")),
        _ => Ok((0..layers).filter(|layer| !keep.contains(layer)).map(|layer| layer as i32).collect()),
    }
}

/// llama.cpp's part: `src` to `dst`, which is no finished file's name. The inner error is llama.cpp's reason.
///
/// # Errors
/// A path is not UTF-8.
pub fn convert(src: &Path, dst: &Path, options: &Quantize, dropped: &[i32]) -> Result<Result<(), String>, GgufError> {
    let (from, to) = (c_path(src)?, c_path(dst)?);
    let ascending = dropped.is_sorted_by(|a, b| a < b) && dropped.first().is_none_or(|&first| first >= 0);
    if !ascending {
        return Ok(Err("the layers to drop are not in order".to_owned()));
    }
    let dropped: Vec<i32> = dropped.iter().copied().chain([-1]).collect();
    super::backend();
    super::log::clear();
    // SAFETY: returns a struct by value.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = options.precision.row().1;
    params.nthread = options.threads.min(512) as i32;
    params.allow_requantize = options.requantize;
    params.only_copy = options.precision == Precision::Copy;
    if dropped.len() > 1 {
        params.prune_layers = dropped.as_ptr();
    }
    // SAFETY: both paths end in zero; `dropped` is ascending, ends in -1 and outlives the call; the source was checked.
    match unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params) } {
        0 => Ok(Ok(())),
        _ => Ok(Err(super::log::last_errors().unwrap_or_else(|| "it gives no reason".to_owned()))),
    }
}

/// How a child process ended.
enum Ended {
    Done,
    Cancelled,
    Failed(String),
}

/// [`convert`] in a child process, whose log is read for its progress.
fn in_child(
    child: &Child,
    src: &Path,
    temporary: &Path,
    dst: &Path,
    options: &Quantize,
    dropped: &[i32],
) -> io::Result<Ended> {
    let numbers = dropped.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(child.subcommand).arg(src).arg(temporary).arg(options.precision.name());
    command.args(["--threads", &options.threads.to_string(), "--dropped", &numbers]);
    command.args(options.requantize.then_some("--requantize"));
    // Its stdin closes when this process ends, however it ends; see [`end_with_parent`].
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stdin = process.stdin.take();
    let (sender, lines) = mpsc::channel();
    if let Some(log) = process.stderr.take() {
        std::thread::spawn(move || {
            let text = BufReader::new(log).lines().map_while(Result::ok);
            text.map_while(|line| sender.send(line).ok()).for_each(|()| {});
        });
    }
    let mut reason = "it gives no reason".to_owned();
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => match (progress_of(&line), line.strip_prefix("error: ")) {
                (Some((done, all)), _) => (child.progress)(dst, done, all),
                (None, Some(error)) => reason = error.to_owned(),
                (None, None) => {}
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if child.cancelled.load(Ordering::Relaxed) {
            process.kill()?;
        }
    }
    let status = process.wait()?;
    drop(stdin);
    match (status.success(), child.cancelled.load(Ordering::Relaxed) || is_interrupt(status)) {
        (true, _) => Ok(Ended::Done),
        (false, true) => Ok(Ended::Cancelled),
        (false, false) => Ok(Ended::Failed(reason)),
    }
}

/// Ctrl-C on a terminal reaches the child too, and may end it before this process has heard of it.
#[cfg(unix)]
fn is_interrupt(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal().is_some_and(|signal| [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].contains(&signal))
}

#[cfg(not(unix))]
fn is_interrupt(_: ExitStatus) -> bool {
    false
}

/// For the child, before [`convert`]: if the parent ends, however it ends, remove the file begun at `dst` and end too.
pub fn end_with_parent(dst: &Path) {
    let dst = dst.to_owned();
    std::thread::spawn(move || {
        // Nothing is ever sent: this returns when the other side is closed.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = fs::remove_file(dst);
        std::process::exit(2);
    });
}

/// `[  12/  57] blk.1…`, as llama.cpp logs each tensor.
fn progress_of(line: &str) -> Option<(usize, usize)> {
    let (done, all) = line.trim_start().strip_prefix('[')?.split_once(']')?.0.split_once('/')?;
    Some((done.trim().parse().ok()?, all.trim().parse().ok()?))
}

fn c_path(path: &Path) -> Result<CString, GgufError> {
    let text = path.to_str().map(CString::new).and_then(Result::ok);
    text.ok_or_else(|| GgufError::Read {
        path: path.into(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "llama.cpp needs a path in UTF-8"),
    })
}

/// Architectures whose layers are all alike.
const PLAIN: [&str; 3] = ["llama", "qwen2", "qwen3"];

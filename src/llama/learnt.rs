//! What control learnt, kept for the next run in small files in the cache folder: of the machine, one per target,
//! number of threads, KV type, place of the weights, build and devices; and of a drafter that drafts for this target, how
//! right it tends to be and what it costs, one for each of these, settings and files of it, and whether sampling is
//! greedy. Neither holds a word of any text. It is a beginning, not a truth: control goes on learning from every round.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::derive::{cache_folder, content};
use super::host::LlamaHost;
use super::model::devices;
use super::version;
use crate::config::Setup;
use crate::control::{Control, Habits};
use crate::cost::CostCurve;
use crate::threads::Threads;
use foretoken_drafter::{Host, Law};

/// What is kept of the machine.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// T(n) of the target.
    pub curve: CostCurve,
    /// With so many threads.
    pub on: usize,
    /// The number of threads that was found best, if others were tried.
    pub threads: Option<usize>,
    /// The least seconds that a plain step ever took.
    pub step: Option<f64>,
}

/// What was last learnt of the host's target; `None` if nothing was, or nothing that can be read.
pub fn machine(host: &LlamaHost<'_>) -> Option<Machine> {
    read(&machine_file(host, host.context_options().threads)?)
}

/// What was last learnt of the drafter of `setup`, likewise.
pub fn habits(host: &LlamaHost<'_>, setup: &Setup) -> Option<Habits> {
    read(&habits_file(host, setup)?)
}

impl Machine {
    /// What `control` learnt.
    pub fn of(host: &LlamaHost<'_>, control: &Control) -> Machine {
        let threads = control.threads();
        Machine {
            curve: control.curve().clone(),
            on: threads.map_or(host.context_options().threads, Threads::now),
            threads: threads.and_then(Threads::found),
            step: threads.and_then(Threads::record),
        }
    }
}

/// Keep what was learnt of the machine for the next run with `threads`, those that it begins with or was told. That it
/// cannot be kept is no reason to fail.
pub fn store_machine(host: &LlamaHost<'_>, threads: usize, learnt: &Machine) {
    let _ = machine_file(host, threads).and_then(|path| write(&path, learnt));
}

/// Keep what `control` learnt of the drafter of `setup`, likewise.
pub fn store_habits(host: &LlamaHost<'_>, setup: &Setup, control: &Control) {
    let _ = habits_file(host, setup).and_then(|path| write(&path, &control.habits()));
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize) -> Option<()> {
    let folder = path.parent()?;
    std::fs::create_dir_all(folder).ok()?;
    let mut file = tempfile::NamedTempFile::new_in(folder).ok()?;
    file.write_all(&serde_json::to_vec(value).ok()?).ok()?;
    file.persist(path).ok().map(drop)
}

fn machine_file(host: &LlamaHost<'_>, threads: usize) -> Option<PathBuf> {
    Some(folder().join(format!("{}-{threads}-threads-{:016x}.json", target(host)?, place(host))))
}

/// What times depend on besides the target and the number of threads: a draft's seconds on a GPU say nothing about those
/// on a CPU.
fn place(host: &LlamaHost<'_>) -> u64 {
    let (options, load) = (host.context_options(), host.load_options());
    let (llama_cpp, features) = version();
    hash(&format!(
        "{} {llama_cpp} {features} {:?} {:?} {:?} {:?} {} {:?}",
        env!("CARGO_PKG_VERSION"),
        options.type_k,
        options.flash_attention,
        load.gpu_layers,
        load.device,
        load.repack,
        devices(),
    ))
}

fn habits_file(host: &LlamaHost<'_>, setup: &Setup) -> Option<PathBuf> {
    // The base is empty where no configuration names another folder, and without one.
    let base = std::env::current_dir().ok()?.join(&setup.base);
    let settings: toml::Table = setup.drafter.settings.parse().ok()?;
    let mut files = Vec::new();
    if setup.drafter.kind == "auto" {
        let found = host.companions();
        let unnamed = [("model", found.models), ("heads", found.heads), ("table", found.tables)];
        files.extend(unnamed.into_iter().filter(|(key, _)| !settings.contains_key(*key)).flat_map(|(_, files)| files));
    }
    files.extend(named_files(&toml::Value::Table(settings), &base));
    let files: Vec<Option<u64>> = files.iter().map(|file| content(file).ok()).collect();
    let drafter = hash(&format!(
        "{} {} {} {} {} {} {:x} {files:?}",
        env!("CARGO_PKG_VERSION"),
        base.display(),
        setup.drafter.kind,
        setup.drafter.settings,
        setup.sampling.is_greedy(),
        host.context_options().threads,
        place(host),
    ));
    Some(folder().join(format!("{}-{}-{drafter:016x}.json", target(host)?, setup.drafter.kind)))
}

/// The files that a drafter's settings name: another model of the same name is another drafter.
fn named_files(settings: &toml::Value, base: &Path) -> Vec<PathBuf> {
    match settings {
        toml::Value::String(text) => Some(base.join(text)).filter(|path| path.is_file()).into_iter().collect(),
        // A history grows with every run, and is the same drafter's.
        toml::Value::Table(table) => {
            let lasting = table.iter().filter(|(key, _)| *key != "history");
            lasting.flat_map(|(_, value)| named_files(value, base)).collect()
        }
        toml::Value::Array(items) => items.iter().flat_map(|item| named_files(item, base)).collect(),
        _ => Vec::new(),
    }
}

fn folder() -> PathBuf {
    cache_folder().join("learnt")
}

/// The target's name and content.
fn target(host: &LlamaHost<'_>) -> Option<String> {
    let path = host.model().path();
    Some(format!("{}-{:016x}", path.file_stem()?.to_string_lossy(), content(path).ok()?))
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

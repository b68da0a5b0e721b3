//! What does the machine tell of itself, and of what a run took?
//!
//! The processor's name, and what of it this build leaves unused; this process's memory and the energy that the
//! processor counts, where the system tells them (Linux); `None` elsewhere. `bench` asks around a run, never within one.
//! Energy is that of whole processors and their memory: what else runs on them is counted too.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// The processor's name.
pub fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// An instruction set that makes it cheaper to verify several tokens at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet {
    /// Its name, for people.
    pub name: &'static str,
    /// Whether the processor has it.
    pub on_cpu: bool,
    /// Whether this program was built for it: llama.cpp is compiled for what Rust was told to target.
    pub in_build: bool,
}

/// Those that matter, here and in this build.
#[cfg(target_arch = "x86_64")]
pub fn instruction_sets() -> Vec<InstructionSet> {
    // `is_x86_feature_detected!` is constant where the compiler was given the feature, and a build for
    // another machine may not even get here; the raw leaf tells about this one.
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    let has = |register: u32, bit: u32| register & (1 << bit) != 0;
    let set = |name, on_cpu, in_build| InstructionSet { name, on_cpu, in_build };
    vec![
        set("AVX2", has(leaf.ebx, 5), cfg!(target_feature = "avx2")),
        set("AVX-512", has(leaf.ebx, 16), cfg!(target_feature = "avx512f")),
        set("AVX-512 VNNI", has(leaf.ecx, 11), cfg!(target_feature = "avx512vnni")),
    ]
}

/// Other processors: nothing to tell.
#[cfg(not(target_arch = "x86_64"))]
pub fn instruction_sets() -> Vec<InstructionSet> {
    Vec::new()
}

/// One line for the user if the processor has instruction sets that the build leaves out. Such a build verifies several
/// tokens at a needlessly high price, and nothing else would tell.
pub fn build_advice(sets: &[InstructionSet]) -> Option<String> {
    let unused: Vec<&str> = sets.iter().filter(|set| set.on_cpu && !set.in_build).map(|set| set.name).collect();
    (!unused.is_empty()).then(|| {
        format!(
            "this program was built without {}, which this CPU has; build it on this machine with `cargo build \
             --release` and without RUSTFLAGS in the environment, and it will be faster",
            unused.join(" and ")
        )
    })
}

/// The physical memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The most that it ever had, in bytes, mapped files included.
    pub peak_rss_bytes: u64,
    /// What it has now without mapped files, in bytes: caches, buffers and repacked weights.
    pub rss_anon_bytes: u64,
}

/// This process's memory as of now.
pub fn memory() -> Option<Memory> {
    Memory::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

impl Memory {
    /// From the text of `/proc/<pid>/status`.
    fn parse(status: &str) -> Option<Memory> {
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        Some(Memory { peak_rss_bytes: bytes("VmHWM")?, rss_anon_bytes: bytes("RssAnon")? })
    }
}

/// The energy counters of a machine's processors and of their memory (RAPL).
#[derive(Clone, Debug)]
pub struct EnergyMeter {
    zones: Vec<Zone>,
}

/// Something whose energy is counted.
#[derive(Clone, Debug)]
struct Zone {
    counter: PathBuf,
    /// The largest value in µJ; the counter begins anew after it.
    most: u64,
}

/// What the counters of a meter said at one moment, in µJ.
#[derive(Clone, Debug)]
pub struct Reading(Vec<u64>);

impl EnergyMeter {
    /// The meter of this machine. `None` if it has no counters, or none that this user may read: by default, only the
    /// administrator may.
    pub fn of_this_machine() -> Option<EnergyMeter> {
        EnergyMeter::at(Path::new("/sys/class/powercap"))
    }

    /// The meter whose zones lie in `folder`. Packages and memory are counted; cores and graphics are parts of a
    /// package, and a platform has packages as its parts.
    pub fn at(folder: &Path) -> Option<EnergyMeter> {
        let entries = std::fs::read_dir(folder).ok()?;
        let zones: Vec<Zone> = entries.flatten().filter_map(|entry| Zone::at(&entry.path())).collect();
        let meter = EnergyMeter { zones };
        meter.read().map(|_| meter)
    }

    /// What the counters say now.
    pub fn read(&self) -> Option<Reading> {
        let values: Option<Vec<u64>> = self.zones.iter().map(|zone| number(&zone.counter)).collect();
        values.filter(|values| !values.is_empty()).map(Reading)
    }

    /// Joules since `before`, a reading of this meter. A counter may have begun anew once meanwhile; at 200 W the
    /// smallest ones do so every few minutes.
    pub fn joules_since(&self, before: &Reading) -> Option<f64> {
        let now = self.read()?;
        let of_zone = |(zone, (&before, &now)): (&Zone, (&u64, &u64))| match now >= before {
            true => now - before,
            false => zone.most.saturating_sub(before) + now,
        };
        let microjoules: u64 = self.zones.iter().zip(before.0.iter().zip(&now.0)).map(of_zone).sum();
        Some(microjoules as f64 / 1e6)
    }
}

impl Zone {
    fn at(folder: &Path) -> Option<Zone> {
        folder.file_name()?.to_str()?.strip_prefix("intel-rapl:")?;
        let name = std::fs::read_to_string(folder.join("name")).ok()?;
        let is_counted = name.starts_with("package") || name.trim() == "dram";
        let most = number(&folder.join("max_energy_range_uj"))?;
        is_counted.then(|| Zone { counter: folder.join("energy_uj"), most })
    }
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kilobytes() {
        let status = "Name:\tforetoken\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nRssAnon:\t     3 kB\n";
        assert_eq!(Memory::parse(status), Some(Memory { peak_rss_bytes: 2 << 20, rss_anon_bytes: 3072 }));
        assert_eq!(Memory::parse("VmHWM:\t2048 kB\n"), None, "half an answer is none");
        assert_eq!(Memory::parse("VmHWM:\tmuch\nRssAnon:\t3 kB"), None);
    }

    #[test]
    fn what_the_processor_has_and_the_build_leaves_out_is_said() {
        let advice = |cpu: [bool; 2], build: [bool; 2]| {
            let set = |(name, i): (_, usize)| InstructionSet { name, on_cpu: cpu[i], in_build: build[i] };
            let advice = build_advice(&[("AVX-512", 0), ("AVX-512 VNNI", 1)].map(set));
            advice.map(|line| line.split_once(", which").unwrap().0.to_owned())
        };
        let without = |sets: &str| Some(format!("this program was built without {sets}"));
        assert_eq!(advice([true, true], [false, false]), without("AVX-512 and AVX-512 VNNI"));
        assert_eq!(advice([true, true], [true, false]), without("AVX-512 VNNI"));
        assert_eq!(advice([true, false], [false, false]), without("AVX-512"), "the CPU has not the other");
        assert_eq!(advice([true, true], [true, true]), None);
        assert_eq!(advice([false, false], [false, false]), None, "a CPU without them misses nothing");
        assert_eq!(advice([false, false], [true, true]), None, "nor by a build that has them");
        assert_eq!(build_advice(&[]), None);
    }

    fn zone(folder: &Path, zone: &str, name: &str, counter: u64) {
        let folder = folder.join(zone);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("name"), format!("{name}\n")).unwrap();
        std::fs::write(folder.join("max_energy_range_uj"), "1000000\n").unwrap();
        std::fs::write(folder.join("energy_uj"), format!("{counter}\n")).unwrap();
    }

    #[test]
    fn packages_and_memory_are_counted_once_and_past_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let set = |package, core, dram, platform| {
            zone(folder.path(), "intel-rapl:0", "package-0", package);
            zone(folder.path(), "intel-rapl:0:0", "core", core);
            zone(folder.path(), "intel-rapl:0:2", "dram", dram);
            zone(folder.path(), "intel-rapl:1", "psys", platform);
            zone(folder.path(), "intel-rapl-mmio:0", "package-0", package);
        };
        set(100_000, 5, 900_000, 7);
        let meter = EnergyMeter::at(folder.path()).unwrap();
        let before = meter.read().unwrap();
        set(350_000, 200_000, 50_000, 900_000);
        assert_eq!(meter.joules_since(&before), Some(0.25 + 0.15), "the memory's counter began anew");
        std::fs::remove_file(folder.path().join("intel-rapl:0/energy_uj")).unwrap();
        assert_eq!(meter.joules_since(&before), None, "not a part for the whole");
    }

    #[test]
    fn without_counters_there_is_no_meter() {
        let folder = tempfile::tempdir().unwrap();
        assert!(EnergyMeter::at(&folder.path().join("absent")).is_none());
        assert!(EnergyMeter::at(folder.path()).is_none());
        zone(folder.path(), "intel-rapl:0", "package-0", 1);
        std::fs::write(folder.path().join("intel-rapl:0/energy_uj"), "no number").unwrap();
        assert!(EnergyMeter::at(folder.path()).is_none());
    }
}

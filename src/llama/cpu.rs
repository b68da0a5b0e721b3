//! What this CPU can do and this build does not use.
//!
//! llama.cpp is compiled for the instruction set that Rust was told to target. A build that leaves out
//! AVX-512 or VNNI on a CPU that has them verifies several tokens at a needlessly high price, and
//! nothing else would tell.

/// Names of the instruction sets that this CPU has, that would matter, and that this build leaves out.
#[cfg(target_arch = "x86_64")]
pub fn unused_instruction_sets() -> Vec<&'static str> {
    // `is_x86_feature_detected!` is constant where the compiler was given the feature, and a build for
    // another machine may not even get here; the raw leaf tells about this one.
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    let has = |register: u32, bit: u32| register & (1 << bit) != 0;
    [
        ("AVX2", has(leaf.ebx, 5), cfg!(target_feature = "avx2")),
        ("AVX-512", has(leaf.ebx, 16), cfg!(target_feature = "avx512f")),
        ("AVX-512 VNNI", has(leaf.ecx, 11), cfg!(target_feature = "avx512vnni")),
    ]
    .into_iter()
    .filter(|&(_, has, used)| has && !used)
    .map(|(name, ..)| name)
    .collect()
}

/// Other processors: nothing to tell.
#[cfg(not(target_arch = "x86_64"))]
pub fn unused_instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

/// One line for the user, if there is something to gain.
pub fn advice() -> Option<String> {
    let unused = unused_instruction_sets();
    (!unused.is_empty()).then(|| {
        format!(
            "this program was built without {}, which this CPU has; build it on this machine with `cargo build \
             --release` and without RUSTFLAGS in the environment, and it will be faster",
            unused.join(" and ")
        )
    })
}

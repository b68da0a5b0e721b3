//! This crate's reader of GGUF against llama.cpp's: what ours accepts, that one accepts too, and reads alike.

use std::{
    ffi::CStr,
    fs,
    os::raw::{c_char, c_void},
    sync::Once,
};

use llama_cpp_sys_2 as sys;

use crate::gguf::{
    tests::{damaged_samples, loadable, reading, sample, Reading},
    TensorType,
};

const ARRAY: u32 = 9;

#[test]
#[allow(clippy::unnecessary_cast)] // the bindings' integers are signed on some platforms
fn the_types_are_ggmls() {
    for id in 0..sys::GGML_TYPE_COUNT as u32 {
        // SAFETY: table look-ups, with numbers below GGML_TYPE_COUNT only.
        let (block, bytes, name) = unsafe {
            let id = id as sys::ggml_type;
            (sys::ggml_blck_size(id) as u64, sys::ggml_type_size(id) as u64, sys::ggml_type_name(id))
        };
        let Some(kind) = TensorType::new(id) else {
            assert_eq!(block, 0, "type {id} is missing");
            continue;
        };
        assert_eq!((kind.block(), kind.block_bytes()), (block, bytes), "type {id}");
        // SAFETY: a type with a block has a name, a static string.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().to_uppercase();
        assert_eq!(kind.name(), name);
    }
    assert_eq!(TensorType::new(sys::GGML_TYPE_COUNT as u32), None);
}

#[test]
fn damage_is_refused_or_read_as_llama_cpp_reads_it() {
    let mut accepted = 0;
    damaged_samples(&mut |bytes| {
        if let Some(ours) = reading(bytes) {
            assert_eq!(Some(ours), llamas_reading(bytes));
            accepted += 1;
        }
    });
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn no_truncation_kills_llama_cpp() {
    let bytes = sample();
    (0..bytes.len()).for_each(|n| drop(llamas_reading(&bytes[..n])));
}

#[test]
fn the_bundled_models_are_read_as_llama_cpp_reads_them() {
    for name in ["target", "draft"] {
        let path = format!("{}/models/{name}.gguf", env!("CARGO_MANIFEST_DIR"));
        let bytes = fs::read(path).unwrap();
        assert!(loadable(&bytes));
        assert_eq!(reading(&bytes), llamas_reading(&bytes));
    }
}

fn llamas_reading(bytes: &[u8]) -> Option<Reading> {
    extern "C" fn silent(_: sys::ggml_log_level, _: *const c_char, _: *mut c_void) {}
    static ONCE: Once = Once::new();
    // SAFETY: the callback ignores its arguments.
    ONCE.call_once(|| unsafe { sys::llama_log_set(Some(silent), std::ptr::null_mut()) });
    // SAFETY: the context is used while it lives and with ids below the counts it gives; strings are copied.
    unsafe {
        let params = sys::gguf_init_params { no_alloc: true, ctx: std::ptr::null_mut() };
        let gguf = sys::gguf_init_from_buffer(bytes.as_ptr().cast(), bytes.len(), params);
        if gguf.is_null() {
            return None;
        }
        let text = |c: *const c_char| CStr::from_ptr(c).to_string_lossy().into_owned();
        let keys = (0..sys::gguf_get_n_kv(gguf)).map(|i| {
            let kind = sys::gguf_get_kv_type(gguf, i) as u32;
            let len = if kind == ARRAY { sys::gguf_get_arr_n(gguf, i) } else { 1 };
            (text(sys::gguf_get_key(gguf, i)), (kind, len))
        });
        let tensors = (0..sys::gguf_get_n_tensors(gguf)).map(|i| {
            let kind = sys::gguf_get_tensor_type(gguf, i) as u32;
            let (offset, size) = (sys::gguf_get_tensor_offset(gguf, i), sys::gguf_get_tensor_size(gguf, i));
            (text(sys::gguf_get_tensor_name(gguf, i)), kind, offset as u64, size as u64)
        });
        let reading = (keys.collect(), tensors.collect(), sys::gguf_get_data_offset(gguf) as u64);
        sys::gguf_free(gguf);
        Some(reading)
    }
}

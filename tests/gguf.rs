//! Derived model files against the bundled models they are made from: they load, and say what they should.

use std::{
    fs,
    path::{Path, PathBuf},
};

use foretoken::llama::{
    context::{Context, ContextOptions},
    gguf::{GgufFile, GgufWriter, TensorType},
    model::{LoadOptions, Model},
    quantize::{estimate, quantize, Precision, Quantize},
    scorer::Scorer,
    widen::{widen, Widen},
};
use foretoken_drafter::{LanguageModel, NodeId, SeqId, Token, TokenTree};

const WIDER: Widen = Widen { dim: 512, ffn: 1536, kv_heads: None, seed: 1 };

#[test]
fn a_widened_model_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["target", "draft"] {
        for kv_heads in [None, Some(8)] {
            let wide = folder.path().join("wide.gguf");
            let mut told = Vec::new();
            let options = Widen { kv_heads, ..WIDER };
            let made = widen(&bundled(name), &wide, &options, &mut |part| told.push(part)).unwrap();
            assert!(told.is_sorted() && told.last() == Some(&1.0));
            assert_eq!(made.bytes, fs::metadata(&wide).unwrap().len());
            let file = GgufFile::open(&wide).unwrap();
            assert_eq!((file.parameters(), file.quantisation().as_str()), (made.parameters, "F16"));
            assert!(file.name().unwrap().ends_with("widened"));

            let (small, large) = (Run::of(&bundled(name), 24), Run::of(&wide, 24));
            assert_eq!(small.tokens, large.tokens, "{name}");
            let pairs = small.logits.iter().flatten().zip(large.logits.iter().flatten());
            let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{name} kv {kv_heads:?}: {made:?}, max |Δlogit| {most}");
            assert!(most < 0.1, "{name}: logits differ by {most}");
        }
    }
}

#[test]
fn a_widened_model_can_be_quantised_and_then_says_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (wide, quantised) = (folder.path().join("wide.gguf"), folder.path().join("q.gguf"));
    widen(&bundled("target"), &wide, &WIDER, &mut |_| ()).unwrap();
    for precision in [Precision::Q8_0, Precision::Q4_0, Precision::Q4KM] {
        let size = quantize(&wide, &quantised, &options(precision)).unwrap();
        let estimate = estimate(&GgufFile::open(&wide).unwrap(), precision, &[]);
        println!("{precision}: {size} bytes, {estimate} estimated");
        assert!((estimate as f64 / size as f64 - 1.0).abs() < 0.1, "{precision}: {size} bytes, {estimate} estimated");
        let (a, b) = (Run::of(&bundled("target"), 1), Run::of(&quantised, 1));
        let most = a.logits[0].iter().zip(&b.logits[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{precision}: max |Δlogit| {most}");
        assert!(most < if precision == Precision::Q8_0 { 1.0 } else { 6.0 }, "{precision}: {most}");
    }
}

#[test]
fn sizes_for_a_number_of_parameters() {
    let million = Widen::for_parameters(&bundled("target"), 50_000_000).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = widen(&bundled("target"), &folder.path().join("w"), &million, &mut |_| ()).unwrap();
    assert!(made.parameters.abs_diff(50_000_000) < 12_500_000, "{made:?}");
    let billion = Widen::for_parameters(&bundled("target"), 1_000_000_000).unwrap();
    println!("{million:?} {billion:?}");
    let small = Widen::for_parameters(&bundled("target"), 1000).unwrap_err().to_string();
    assert!(small.contains("ask for about "), "{small}");
}

#[test]
fn unsuited_widenings_are_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let refusal =
        |src: &Path, dst: &Path, options: Widen| widen(src, dst, &options, &mut |_| ()).unwrap_err().to_string();
    let target = bundled("target");
    let with = |options| refusal(&target, &at("out"), options);
    assert!(with(Widen { dim: 128, ..WIDER }).contains("smaller"));
    assert!(with(Widen { ffn: 32, ..WIDER }).contains("smaller"));
    assert!(with(Widen { dim: 520, ..WIDER }).contains("multiple of 32"));
    assert!(with(Widen { ffn: 1537, ..WIDER }).contains("multiple of 32"));
    assert!(with(Widen { dim: u32::MAX, ..WIDER }).contains("too large"));
    assert!(with(Widen { kv_heads: Some(0), ..WIDER }).contains("key-value"));
    assert!(with(Widen { kv_heads: Some(5), ..WIDER }).contains("key-value"));

    let copy = at("copy.gguf");
    fs::copy(&target, &copy).unwrap();
    assert!(refusal(&copy, &copy, WIDER).contains("choose another output"));
    assert!(refusal(&copy, &at("./copy.gguf"), WIDER).contains("choose another output"));
    assert!(refusal(&copy, folder.path(), WIDER).contains("is a directory"));
    assert!(refusal(&copy, &at("no/such/folder"), WIDER).contains("no/such/folder"));

    quantize(&target, &at("q8"), &options(Precision::Q8_0)).unwrap();
    assert!(refusal(&at("q8"), &at("out"), WIDER).contains("then quantise"));
    let changed = |change: &dyn Fn(&mut GgufWriter)| {
        rewrite(&target, &at("changed"), |_| true, change);
        refusal(&at("changed"), &at("out"), WIDER)
    };
    assert!(changed(&|w| w.set("general.architecture", "qwen2")).contains("only `llama`"));
    assert!(changed(&|w| w.set("llama.attention.head_count", &[8u32; 6][..])).contains("head_count"));
    assert!(changed(&|w| w.set("llama.feed_forward_length", 1024u32)).contains("shape"));
    assert!(changed(&|w| w.set("llama.attention.head_count", u32::MAX)).contains("widen another model"));
    rewrite(&target, &at("changed"), |name| name != "blk.3.ffn_up.weight", &|_| ());
    assert!(refusal(&at("changed"), &at("out"), WIDER).contains("blk.3.ffn_up.weight is missing"));
    rewrite(&target, &at("changed"), |_| true, &|w| w.tensor("blk.0.attn_q.bias", TensorType::F32, &[256]));
    assert!(refusal(&at("changed"), &at("out"), WIDER).contains("`blk.0.attn_q.bias`"));
    assert!(!at("out").exists());
}

#[test]
fn a_quantised_copy_loads_and_says_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q8.gguf");
    let size = quantize(&bundled("target"), &path, &options(Precision::Q8_0)).unwrap();
    assert!(size < fs::metadata(bundled("target")).unwrap().len() * 6 / 10);
    assert_eq!(GgufFile::open(&path).unwrap().quantisation(), "Q8_0");
    let (a, b) = (Run::of(&bundled("target"), 1), Run::of(&path, 1));
    assert_eq!(a.tokens, b.tokens);

    let again = quantize(&path, &folder.path().join("q4.gguf"), &options(Precision::Q4_0)).unwrap_err().to_string();
    assert!(again.contains("quantised already (Q8_0)"), "{again}");
    let allowed = Quantize { requantize: true, ..options(Precision::Q4_0) };
    quantize(&path, &folder.path().join("q4.gguf"), &allowed).unwrap();
    Run::of(&folder.path().join("q4.gguf"), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn some_layers_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.gguf");
    let keep = |precision, layers: &[u32]| Quantize { layers: Some(layers.into()), ..options(precision) };
    for (precision, layers) in
        [(Precision::Copy, &[0, 1, 2][..]), (Precision::Q8_0, &[0, 1, 2]), (Precision::Copy, &[0, 2, 5])]
    {
        let size = quantize(&bundled("target"), &path, &keep(precision, layers)).unwrap();
        let dropped: Vec<i32> = (0..6).filter(|n| !layers.contains(&(*n as u32))).collect();
        let estimate = estimate(&GgufFile::open(&bundled("target")).unwrap(), precision, &dropped);
        assert!((estimate as f64 / size as f64 - 1.0).abs() < 0.1, "{layers:?}: {size} bytes, {estimate} estimated");
        let (part, all) = (GgufFile::open(&path).unwrap(), GgufFile::open(&bundled("target")).unwrap());
        assert_eq!(part.network("block_count"), Some(3));
        let data = |file: &GgufFile, layer: u32| {
            let tensor = file.tensor(&format!("blk.{layer}.ffn_norm.weight")).unwrap();
            file.data(tensor).unwrap().to_vec()
        };
        layers.iter().enumerate().for_each(|(new, &old)| assert_eq!(data(&part, new as u32), data(&all, old)));
        Run::of(&path, 2);
    }
    quantize(&bundled("target"), &path, &keep(Precision::Copy, &[0, 1, 2, 3, 4, 5])).unwrap();
    let refused =
        |layers: &[u32]| quantize(&bundled("target"), &path, &keep(Precision::Copy, layers)).unwrap_err().to_string();
    for layers in [&[][..], &[1, 0], &[1, 1], &[0, 6]] {
        assert!(refused(layers).contains("name each layer once"));
    }
    let other = folder.path().join("other.gguf");
    let refused = |change: &dyn Fn(&mut GgufWriter), layers: &[u32]| {
        rewrite(&bundled("target"), &other, |_| true, change);
        quantize(&other, &path, &keep(Precision::Copy, layers)).unwrap_err().to_string()
    };
    assert!(refused(&|w| w.set("general.architecture", "gemma3"), &[1]).contains("number of layers"));
    let gemma = |w: &mut GgufWriter| {
        w.set("general.architecture", "gemma3");
        w.set("gemma3.block_count", 6u32);
    };
    assert!(refused(&gemma, &[0, 2]).contains("keep the first ones"));
    assert!(refused(&|w| w.set("llama.nextn_predict_layers", 1u32), &[0]).contains("MTP"));
    assert!(refused(&|w| w.set("llama.x", &[1u32; 6][..]), &[0]).contains("one value per layer"));
}

#[test]
fn quantising_never_touches_its_source_and_knows_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.gguf");
    fs::copy(bundled("draft"), &copy).unwrap();
    let error = quantize(&copy, &copy, &options(Precision::Q8_0)).unwrap_err().to_string();
    assert!(error.contains("choose another output"), "{error}");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(bundled("draft")).unwrap());
    let cut = folder.path().join("cut.gguf");
    fs::write(&cut, &fs::read(&copy).unwrap()[..1_000_000]).unwrap();
    assert!(quantize(&cut, &folder.path().join("q"), &options(Precision::Q8_0)).is_err());
    assert!(!folder.path().join("q").exists());

    for precision in Precision::ALL {
        assert_eq!(precision.name().to_uppercase().parse::<Precision>().unwrap(), precision);
    }
    assert!("iq2_xs".parse::<Precision>().unwrap_err().to_string().contains("importance matrix"));
    assert!("q9".parse::<Precision>().unwrap_err().to_string().contains("unknown precision `q9`"));
}

fn options(precision: Precision) -> Quantize {
    Quantize { precision, threads: 0, layers: None, requantize: false }
}

fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/{name}.gguf"))
}

/// A copy with some tensors left out, some added (zeros) and some keys changed.
fn rewrite(src: &Path, dst: &Path, wanted: impl Fn(&str) -> bool, change: &dyn Fn(&mut GgufWriter)) {
    let file = GgufFile::open(src).unwrap();
    let mut writer = GgufWriter::new();
    writer.copy(&file, |_| true);
    file.tensors().iter().filter(|t| wanted(&t.name)).for_each(|t| writer.tensor(&t.name, t.kind, &t.shape));
    change(&mut writer);
    let write = |tensor: &foretoken::llama::gguf::Tensor, out: &mut dyn std::io::Write| match file.tensor(&tensor.name)
    {
        Some(old) => out.write_all(file.data(old).unwrap()),
        None => out.write_all(&vec![0; tensor.bytes as usize]),
    };
    writer.write(dst, write).unwrap();
}

/// The greedy continuation of a short prompt, with the logits each token was taken from.
struct Run {
    tokens: Vec<Token>,
    logits: Vec<Vec<f32>>,
}

impl Run {
    fn of(path: &Path, n: usize) -> Run {
        let model = Model::load(path, &LoadOptions { gpu_layers: Some(0), ..LoadOptions::default() }).unwrap();
        let mut text = model.tokenise("Once upon a time there was a", true).unwrap();
        let options = ContextOptions { n_ctx: 256, threads: 1, ..ContextOptions::default() };
        let mut scorer = Scorer::new(Context::new(model, &options).unwrap());
        let mut run = Run { tokens: Vec::new(), logits: Vec::new() };
        for _ in 0..n {
            let bare = TokenTree::bare(*text.last().unwrap());
            let logits = scorer.score(SeqId(0), &text, &bare, &[NodeId::ROOT]).unwrap().row(0).to_vec();
            assert!(logits.iter().all(|x| x.is_finite()));
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            text.push(best as Token);
            run.tokens.push(best as Token);
            run.logits.push(logits);
        }
        run
    }
}

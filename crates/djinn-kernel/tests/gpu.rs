//! GPU kernels become PTX, and assemble where `ptxas` is named by `DJINN_PTXAS`.

mod support;

use djinn_ir::{Attrs, DType, Dim, Location, OpKind as K, ValueId};
use std::sync::atomic::{AtomicU32, Ordering};
use support::{Case, compiler};

fn assemble(ptx: &str) {
    let Some(ptxas) = std::env::var_os("DJINN_PTXAS") else {
        eprintln!("not assembled: DJINN_PTXAS names no ptxas");
        return;
    };
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("djinn-kernel-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::write(dir.join("k.ptx"), ptx).expect("a file");
    let run = std::process::Command::new(ptxas)
        .arg("-arch=sm_90")
        .arg(dir.join("k.ptx"))
        .arg("-o")
        .arg(dir.join("k.cubin"))
        .output()
        .expect("ptxas runs");
    let _ = std::fs::remove_dir_all(&dir);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn contractions_and_sorting_become_ptx() {
    let Some(compiler) = compiler("contractions_and_sorting_become_ptx") else { return };
    for (symbolic, dtype) in [(false, DType::F32), (true, DType::BF16), (true, DType::F64)] {
        for threads in [32, 256, 1024] {
            let mut c = Case::new(symbolic);
            let (a, b) = (c.range(dtype, &[70, 40], -1.0, 1.0), c.range(dtype, &[40, 90], -1.0, 1.0));
            let y = c.op(K::MatMul, &[a, b], Attrs::new());
            let z = c.op(K::Relu, &[y], Attrs::new());
            let attrs = Attrs::new()
                .with("axis", 1i64)
                .with("k", Dim::from(5))
                .with("largest", true)
                .with("sorted", true);
            let op = c.graph.build(K::TopK, &[z], attrs, Vec::new(), Location::default());
            let best = c.graph.op(op.expect("it is valid")).results[1];
            let kernel = c.lower_gpu(&[y, z, best], &[], threads).expect("it lowers");
            let text = format!("gpu.module @kernels {{\n{}}}\n", kernel.mlir);
            assert!(text.contains("%left: memref<"), "{text}");
            assemble(&compiler.ptx(&text, "sm_90").unwrap_or_else(|e| panic!("{e}\n{text}")));
        }
    }
}

#[test]
fn kernels_become_ptx() {
    let Some(compiler) = compiler("kernels_become_ptx") else { return };
    for symbolic in [false, true] {
        let mut c = Case::new(symbolic);
        let x = c.range(DType::BF16, &[4, 9, 33], -2.0, 2.0);
        let y = c.op(K::Cast, &[x], Attrs::new().with("to", DType::F32));
        let mut writes: Vec<ValueId> =
            [K::Exp, K::Log, K::Tanh, K::Erf, K::Sin, K::Floor, K::Round, K::Softplus, K::Sign]
                .iter()
                .map(|k| c.op(*k, &[y], Attrs::new()))
                .collect();
        writes.push(c.op(K::Mod, &[y, writes[0]], Attrs::new().with("fmod", true)));
        writes.push(c.op(K::Softmax, &[x], Attrs::new().with("axis", 2i64)));
        let arg = Attrs::new().with("axis", 2i64).with("keepdims", false).with("select_last", false);
        writes.push(c.op(K::ArgMax, &[y], arg));
        let axes = Attrs::new().with("axes", vec![0i64, 2]).with("keepdims", false);
        writes.push(c.op(K::ReduceMax, &[y], axes));
        let scan = Attrs::new().with("axis", 1i64).with("exclusive", false).with("reverse", true);
        writes.push(c.op(K::CumSum, &[y], scan));
        let kernel = c.lower_gpu(&writes, &[], 256).expect("it lowers");
        assert_eq!(kernel.launches.iter().map(|l| l.block[0]).max(), Some(256));
        let text = format!("gpu.module @kernels {{\n{}}}\n", kernel.mlir);
        let ptx = compiler.ptx(&text, "sm_90").unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert!(ptx.contains(".visible .entry"));
        assemble(&ptx);
    }
}

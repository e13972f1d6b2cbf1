//! The plugin through `djinn-mlir`: code for this machine and for GPUs, checks, refusals, threads.

use djinn_mlir::{Compiler, Jit};
use std::ffi::c_void;
use std::time::Instant;

fn compiler() -> Compiler {
    Compiler::load().expect("cargo built the plugin for this test")
}

/// `y[i] = 2 x[i] + 1` for f32.
const SCALE: &str = "func.func @scale(%x: !llvm.ptr, %y: !llvm.ptr, %n: i64) {
  %zero = arith.constant 0 : i64
  %one = arith.constant 1 : i64
  %two = arith.constant 2.0 : f32
  %bias = arith.constant 1.0 : f32
  scf.for %i = %zero to %n step %one : i64 {
    %from = llvm.getelementptr inbounds %x[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
    %to = llvm.getelementptr inbounds %y[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
    %v = llvm.load %from : !llvm.ptr -> f32
    %m = arith.mulf %v, %two : f32
    %a = arith.addf %m, %bias : f32
    llvm.store %a, %to : f32, !llvm.ptr
  }
  return
}";

fn scale(jit: &Jit, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    scale_into(jit, x, &mut y);
    y
}

#[allow(unsafe_code, reason = "compiled code is called")]
fn scale_into(jit: &Jit, x: &[f32], y: &mut [f32]) {
    let (mut from, mut to, mut n) = (x.as_ptr(), y.as_mut_ptr(), x.len().min(y.len()) as i64);
    let function = jit.function("scale").expect("it was compiled");
    let mut args: [*mut c_void; 3] = [(&raw mut from).cast(), (&raw mut to).cast(), (&raw mut n).cast()];
    // SAFETY: the arguments are as the text of `SCALE` has them, and both slices hold `n` elements.
    unsafe { function.call(&mut args) };
}

#[test]
fn a_loop_is_compiled_and_called() {
    let compiler = compiler();
    assert!(compiler.version().starts_with("22."), "{}", compiler.version());
    let jit = compiler.jit(SCALE).expect("it compiles");
    assert_eq!(jit.names().collect::<Vec<_>>(), ["scale"]);
    assert!(jit.function("other").is_none());
    assert_eq!(scale(&jit, &[1.0, 2.0, -3.0]), [3.0, 5.0, -5.0]);
}

#[test]
fn a_function_keeps_its_code_alive() {
    let jit = compiler().jit(SCALE).expect("it compiles");
    assert_eq!(scale(&jit.clone(), &[4.0]), [9.0]);
    let copy = jit.clone();
    drop(jit);
    assert_eq!(scale(&copy, &[5.0]), [11.0]);
}

#[test]
fn dialects_above_llvm_are_lowered() {
    let text = "module {
      func.func @many(%p: !llvm.ptr, %m: memref<4x8xf32, strided<[8, 1], offset: 0>>) -> f32 {
        %c0 = arith.constant 0 : index
        %zero = arith.constant 0.0 : f32
        %v = vector.transfer_read %m[%c0, %c0], %zero {in_bounds = [true, true]}
          : memref<4x8xf32, strided<[8, 1], offset: 0>>, vector<4x8xf32>
        %e = math.exp %v : vector<4x8xf32>
        %acc = arith.constant dense<0.0> : vector<4xf32>
        %s = vector.multi_reduction <add>, %e, %acc [1] : vector<4x8xf32> to vector<4xf32>
        %r = vector.reduction <maximumf>, %s : vector<4xf32> into f32
        %h = arith.truncf %r : f32 to bf16
        %h2 = arith.addf %h, %h : bf16
        %t = arith.extf %h2 : bf16 to f32
        %g = arith.truncf %t : f32 to f16
        %u = arith.extf %g : f16 to f32
        %k = math.tanh %u : f32
        %q = math.erf %k : f32
        %fl = math.floor %q : f32
        %max = arith.maximumf %fl, %q : f32
        cf.br ^bb1(%max : f32)
      ^bb1(%w: f32):
        return %w : f32
      }
    }";
    compiler().jit(text).expect("it compiles");
}

#[test]
fn kernels_become_ptx_for_every_generation() {
    let compiler = compiler();
    for (chip, expected) in
        [("sm_75", ".target sm_75"), ("sm_90", ".target sm_90"), ("sm_120", ".target sm_120")]
    {
        let ptx = compiler.ptx(KERNEL, chip).expect("it compiles");
        assert!(ptx.contains(expected) && ptx.contains(".visible .entry scale("), "{ptx}");
        assert!(ptx.contains("%tid.x") && ptx.contains("shfl.sync"), "{ptx}");
    }
}

const KERNEL: &str = "gpu.module @kernels {
  gpu.func @scale(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>, %n: i64) workgroup(%s: memref<32xf32, #gpu.address_space<workgroup>>) kernel {
    %t = gpu.thread_id x
    %b = gpu.block_id x
    %d = gpu.block_dim x
    %bd = arith.muli %b, %d : index
    %g = arith.addi %bd, %t : index
    %i = arith.index_cast %g : index to i64
    %in = arith.cmpi slt, %i, %n : i64
    scf.if %in {
      %two = arith.constant 2.0 : bf16
      %from = llvm.getelementptr %x[%i] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, bf16
      %v = llvm.load %from : !llvm.ptr<1> -> bf16
      %m = arith.mulf %v, %two : bf16
      %f = arith.extf %m : bf16 to f32
      memref.store %f, %s[%t] : memref<32xf32, #gpu.address_space<workgroup>>
      gpu.barrier
      %w = memref.load %s[%t] : memref<32xf32, #gpu.address_space<workgroup>>
      %c1 = arith.constant 1 : i32
      %c32 = arith.constant 32 : i32
      %r, %p = gpu.shuffle xor %w, %c1, %c32 : f32
      %q = math.sqrt %r : f32
      %to = llvm.getelementptr %y[%i] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, f32
      llvm.store %q, %to : f32, !llvm.ptr<1>
    }
    gpu.return
  }
}";

#[test]
fn refusals_name_place_and_reason() {
    let compiler = compiler();
    let cases = [
        (compiler.jit("func.func @f( {").map(|_| ()), "mlir.module", "line 1"),
        (
            compiler.jit("func.func @f() {\n  \"a.b\"() : () -> ()\n return }").map(|_| ()),
            "mlir.lowering",
            "",
        ),
        (compiler.jit("func.func private @gone(f32) -> f32").map(|_| ()), "mlir.symbol", "gone"),
        (compiler.ptx(KERNEL, "sm_999").map(|_| ()), "mlir.chip", "sm_90"),
        (compiler.ptx("", "sm_90").map(|_| ()), "mlir.module", "no gpu.module"),
        (
            compiler.ptx(&KERNEL.replace("math.sqrt", "math.exp"), "sm_90").map(|_| ()),
            "mlir.symbol",
            "__nv_expf",
        ),
        (compiler.check("func.func @f() {\n  return %x\n}", None).map(|_| ()), "mlir.module", "line 2"),
        (compiler.check("\"a.b\"() : () -> ()", Some("irdl.nothing")).map(|_| ()), "mlir.dialect", ""),
        (compiler.check("\"a.b\"() : () -> ()", Some("")).map(|_| ()), "mlir.module", "unregistered"),
        (compiler.check(&"module {".repeat(10_000), None).map(|_| ()), "mlir.depth", "brackets"),
    ];
    for (result, code, part) in cases {
        let refusal = result.expect_err(code);
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.to_string().contains(part), "{part} in {refusal}");
    }
}

#[test]
fn unknown_operations_are_read_as_they_stand() {
    let printed =
        compiler().check("%0 = \"a.b\"() {x = 1 : i64} : () -> tensor<2xf32>", None).expect("it parses");
    assert!(printed.contains("%0 = \"a.b\"() {x = 1 : i64} : () -> tensor<2xf32>"), "{printed}");
}

#[test]
fn threads_share_a_compiler() {
    let compiler = compiler();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let compiler = &compiler;
            scope.spawn(move || {
                for round in 0..4 {
                    let jit = compiler.jit(SCALE).expect("it compiles");
                    assert_eq!(scale(&jit, &[thread as f32]), [2.0 * thread as f32 + 1.0]);
                    assert!(compiler.ptx(KERNEL, "sm_80").is_ok());
                    let wrong = format!("func.func @f() {{\n{}  oops\n}}", "\n".repeat(thread * 4 + round));
                    let refusal = compiler.check(&wrong, None).expect_err("it does not parse");
                    // The reason is that of this thread's text, not of another's.
                    assert_eq!(refusal.place, [format!("line {}, column 3", thread * 4 + round + 2)]);
                }
            });
        }
    });
}

/// The compiled loop must use what the processor has: several lanes at once are faster than one at a time.
#[test]
fn loops_use_the_vectors_of_this_processor() {
    let compiler = compiler();
    let time = |text: &str| {
        let jit = compiler.jit(text).expect("it compiles");
        let (x, mut y) = (vec![1f32; 2048], vec![0f32; 2048]);
        let rounds = (0..2000).map(|_| {
            let start = Instant::now();
            scale_into(&jit, std::hint::black_box(&x), &mut y);
            start.elapsed()
        });
        rounds.min().expect("there are rounds")
    };
    let vectors = time(SCALE);
    let scalars = time(&SCALE.replace("llvm.load %from", "llvm.load volatile %from"));
    println!("2,048 elements: {vectors:?} in vectors, {scalars:?} one at a time");
    assert!(vectors * 3 < scalars, "{vectors:?} is not faster than {scalars:?}");
}

//! Instructions of PTX against Rust, and how threads run together.

use djinn_cuda_emulator::ptx::{Buffers, Launch, Memory, Module, Trouble, run};
use half::{bf16, f16};

/// A kernel of one thread that loads operands as 64-bit words, does something, and stores `%rd9`.
fn text(body: &str) -> String {
    format!(
        ".version 7.8\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n.reg .pred %p<5>;\n\
         .reg .b16 %rs<10>;\n.reg .b32 %r<10>;\n.reg .b64 %rd<10>;\nld.param.b64 %rd0, [p];\n\
         ld.global.b64 %rd1, [%rd0];\nld.global.b64 %rd2, [%rd0+8];\nld.global.b64 %rd3, [%rd0+16];\n\
         cvt.u32.u64 %r1, %rd1;\ncvt.u32.u64 %r2, %rd2;\ncvt.u32.u64 %r3, %rd3;\ncvt.u16.u64 %rs1, %rd1;\n\
         cvt.u16.u64 %rs2, %rd2;\ncvt.u16.u64 %rs3, %rd3;\nsetp.ne.s32 %p1, %r3, 0;\n{body}\n\
         st.global.b64 [%rd0+24], %rd9;\nret;\n}}\n"
    )
}

/// What the body leaves in `%rd9`.
fn word(body: &str, operands: [u64; 3]) -> u64 {
    let module = Module::parse(&text(body)).unwrap_or_else(|e| panic!("{body}: {e}"));
    let mut memory = Buffers::new();
    let mut bytes: Vec<u8> = operands.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.extend([0; 8]);
    let base = memory.add(bytes);
    let kernel = module.kernel("k").expect("it is there");
    run(kernel, &Launch::new(1, 1), &base.to_le_bytes(), &mut memory)
        .unwrap_or_else(|e| panic!("{body}: {e}"));
    memory.load(base + 24, 8, &mut 0).expect("it is there")
}

/// An instruction on 32-bit registers.
fn word32(instruction: &str, operands: [u32; 3]) -> u32 {
    word(&format!("{instruction}\ncvt.u64.u32 %rd9, %r9;"), operands.map(u64::from)) as u32
}

fn word16(instruction: &str, operands: [u16; 3]) -> u16 {
    word(&format!("{instruction}\ncvt.u64.u16 %rd9, %rs9;"), operands.map(u64::from)) as u16
}

fn float(instruction: &str, operands: [f32; 3]) -> f32 {
    f32::from_bits(word32(instruction, operands.map(f32::to_bits)))
}

const INTS: [u32; 9] = [0, 1, 2, 31, 32, 0x7fff_ffff, 0x8000_0000, 0xffff_fff6, u32::MAX];

#[test]
fn integers_of_32_bits() {
    for a in INTS {
        for b in INTS {
            let c = 5;
            let same = |text: &str, expected: u32| {
                assert_eq!(word32(text, [a, b, c]), expected, "{text} {a:#x} {b:#x}");
            };
            let (sa, sb) = (a as i32, b as i32);
            same("add.s32 %r9, %r1, %r2;", a.wrapping_add(b));
            same("sub.s32 %r9, %r1, %r2;", a.wrapping_sub(b));
            same("mul.lo.s32 %r9, %r1, %r2;", a.wrapping_mul(b));
            same("mul.hi.u32 %r9, %r1, %r2;", ((u64::from(a) * u64::from(b)) >> 32) as u32);
            same("mul.hi.s32 %r9, %r1, %r2;", ((i64::from(sa) * i64::from(sb)) >> 32) as u32);
            same("mad.lo.s32 %r9, %r1, %r2, %r3;", a.wrapping_mul(b).wrapping_add(c));
            same("min.s32 %r9, %r1, %r2;", sa.min(sb) as u32);
            same("max.u32 %r9, %r1, %r2;", a.max(b));
            same("shl.b32 %r9, %r1, %r2;", a.checked_shl(b).unwrap_or(0));
            same("shr.u32 %r9, %r1, %r2;", a.checked_shr(b).unwrap_or(0));
            same("shr.s32 %r9, %r1, %r2;", (sa >> b.min(31)) as u32);
            same("shf.l.wrap.b32 %r9, %r1, %r2, 8;", b << 8 | a >> 24);
            same("shf.r.clamp.b32 %r9, %r1, %r2, 40;", b);
            same("and.b32 %r9, %r1, -16;", a & 0xffff_fff0);
            same("lop3.b32 %r9, %r1, %r2, %r3, 150;", a ^ b ^ c);
            same("selp.b32 %r9, %r1, %r2, %p1;", a);
            if let Some(quotient) = a.checked_div(b) {
                same("div.u32 %r9, %r1, %r2;", quotient);
                same("rem.u32 %r9, %r1, %r2;", a % b);
                same("div.s32 %r9, %r1, %r2;", sa.wrapping_div(sb) as u32);
                same("rem.s32 %r9, %r1, %r2;", sa.wrapping_rem(sb) as u32);
            }
            for (name, holds) in
                [("lt.s32", sa < sb), ("lt.u32", a < b), ("hs.u32", a >= b), ("ne.b32", a != b)]
            {
                let text = format!("setp.{name} %p2, %r1, %r2;\nselp.b32 %r9, 1, 0, %p2;");
                same(&text, u32::from(holds));
                let name = name.replace('.', ".and.");
                let text = format!("setp.{name} %p2|%p3, %r1, %r2, !%p1;\nselp.b32 %r9, 1, 0, %p3;");
                same(&text, 0);
            }
        }
        let same = |text: &str, expected: u32| assert_eq!(word32(text, [a, 0, 0]), expected, "{text} {a:#x}");
        same("popc.b32 %r9, %r1;", a.count_ones());
        same("clz.b32 %r9, %r1;", a.leading_zeros());
        same("brev.b32 %r9, %r1;", a.reverse_bits());
        same("abs.s32 %r9, %r1;", (a as i32).wrapping_abs() as u32);
        same("neg.s32 %r9, %r1;", a.wrapping_neg());
        same("not.b32 %r9, %r1;", !a);
        same("bfe.u32 %r9, %r1, 4, 8;", a >> 4 & 0xff);
        same("bfe.s32 %r9, %r1, 4, 8;", (a >> 4) as u8 as i8 as i32 as u32);
        same("bfi.b32 %r9, 3, %r1, 4, 8;", a & !0xff0 | 0x30);
        same("prmt.b32 %r9, %r1, 0, 291;", a.swap_bytes());
    }
}

#[test]
fn wide_and_narrow_integers() {
    let (a, b) = (0xffff_ffff_ffff_fff5u64, 0x1234_5678_9abc_def0u64);
    let same = |text: &str, expected: u64| assert_eq!(word(text, [a, b, 1]), expected, "{text}");
    same("add.s64 %rd9, %rd1, %rd2;", a.wrapping_add(b));
    same("mul.lo.s64 %rd9, %rd1, %rd2;", a.wrapping_mul(b));
    same("mul.hi.u64 %rd9, %rd1, %rd2;", ((u128::from(a) * u128::from(b)) >> 64) as u64);
    same("mul.hi.s64 %rd9, %rd1, %rd2;", ((i128::from(a as i64) * i128::from(b)) >> 64) as u64);
    same("mad.lo.s64 %rd9, %rd1, 3, %rd2;", a.wrapping_mul(3).wrapping_add(b));
    same("mul.wide.u32 %rd9, %r1, 4;", (a & 0xffff_ffff) * 4);
    same("mul.wide.s32 %rd9, %r1, 4;", (a as i32 as i64 * 4) as u64);
    same("div.s64 %rd9, %rd2, %rd1;", (b as i64 / a as i64) as u64);
    same("bfe.u64 %rd9, %rd2, 12, 20;", b >> 12 & 0xf_ffff);
    same("cvt.s64.s32 %rd9, %r1;", a as i32 as i64 as u64);
    same("mov.b64 {%r4, %r5}, %rd2;\nmov.b64 %rd9, {%r5, %r4};", b.rotate_left(32));
    same("cvt.u32.s8 %r4, %r1;\ncvt.u64.u32 %rd9, %r4;", u64::from(a as i8 as u32));
    same("cvt.sat.u8.s32 %r4, %r1;\ncvt.u64.u32 %rd9, %r4;", 0);
    assert_eq!(word16("mul.lo.s16 %rs9, %rs1, %rs2;", [300, 300, 0]), 300u16.wrapping_mul(300));
    assert_eq!(word16("mul.hi.u16 %rs9, %rs1, %rs2;", [60000, 60000, 0]), ((60000u32 * 60000) >> 16) as u16);
    assert_eq!(word16("shr.s16 %rs9, %rs1, 3;", [0x8000, 0, 0]), 0xf000);
}

const FLOATS: [f32; 12] =
    [0.0, -0.0, 1.0, -1.5, 0.1, 1e-40, 3.4e38, 1.000_000_1, -2.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];

fn same_float(text: &str, actual: f32, expected: f32) {
    let equal = actual.to_bits() == expected.to_bits() || actual.is_nan() && expected.is_nan();
    assert!(equal, "{text}: {actual:e} is not {expected:e}");
}

#[test]
fn floats_are_rounded_once() {
    for a in FLOATS {
        for b in FLOATS {
            let c = 0.3;
            let same = |text: &str, expected: f32| {
                same_float(&format!("{text} {a} {b}"), float(text, [a, b, c]), expected);
            };
            same("add.rn.f32 %r9, %r1, %r2;", a + b);
            same("sub.f32 %r9, %r1, %r2;", a - b);
            same("mul.f32 %r9, %r1, %r2;", a * b);
            same("div.rn.f32 %r9, %r1, %r2;", a / b);
            same("fma.rn.f32 %r9, %r1, %r2, %r3;", a.mul_add(b, c));
            same("copysign.f32 %r9, %r1, %r2;", b.copysign(a));
            let (larger, nan) = (if b.is_nan() || a > b { a } else { b }, a.is_nan() || b.is_nan());
            if a != b {
                same("max.f32 %r9, %r1, %r2;", if a.is_nan() { b } else { larger });
                same("max.NaN.f32 %r9, %r1, %r2;", if nan { f32::NAN } else { larger });
            }
            for (name, holds) in
                [("lt", a < b), ("geu", nan || a >= b), ("ne", !nan && a != b), ("nan", nan), ("eq", a == b)]
            {
                let text =
                    format!("setp.{name}.f32 %p2, %r1, %r2;\nselp.f32 %r9, 0f3F800000, 0f00000000, %p2;");
                same(&text, f32::from(u8::from(holds)));
            }
        }
        let same = |text: &str, expected: f32| {
            same_float(&format!("{text} {a}"), float(text, [a, 0.0, 0.0]), expected)
        };
        same("sqrt.rn.f32 %r9, %r1;", a.sqrt());
        same("rcp.rn.f32 %r9, %r1;", 1.0 / a);
        same("neg.f32 %r9, %r1;", -a);
        same("abs.f32 %r9, %r1;", a.abs());
        same("cvt.rmi.f32.f32 %r9, %r1;", a.floor());
        same("cvt.rni.f32.f32 %r9, %r1;", a.round_ties_even());
        same("mul.ftz.f32 %r9, %r1, 0f3F800000;", if a.is_subnormal() { 0.0 } else { a });
        same("add.sat.f32 %r9, %r1, 0f00000000;", if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) + 0.0 });
    }
    assert_eq!(float("max.f32 %r9, %r1, %r2;", [-0.0, 0.0, 0.0]).to_bits(), 0);
    assert_eq!(float("ex2.approx.f32 %r9, %r1;", [3.0, 0.0, 0.0]), 8.0);
    assert_eq!(float("lg2.approx.f32 %r9, %r1;", [8.0, 0.0, 0.0]), 3.0);
    assert_eq!(float("min.f32 %r9, %r1, %r2;", [f32::NAN, 2.0, 0.0]), 2.0);
}

#[test]
fn conversions_round_and_saturate() {
    for a in [0.5f32, 1.5, -1.5, 2.5, 3e9, -3e9, 1e20, -1e20, 0.0, f32::NAN, f32::INFINITY] {
        let bits = u64::from(a.to_bits());
        let int = |text: &str| word(&format!("{text}\ncvt.u64.u32 %rd9, %r9;"), [bits, 0, 0]) as u32;
        assert_eq!(int("cvt.rzi.s32.f32 %r9, %r1;"), a as i32 as u32, "{a}");
        assert_eq!(int("cvt.rzi.u32.f32 %r9, %r1;"), a as u32, "{a}");
        assert_eq!(int("cvt.rni.s32.f32 %r9, %r1;"), a.round_ties_even() as i32 as u32, "{a}");
        let expected = if a.is_nan() { i64::MIN } else { a as i64 };
        assert_eq!(word("cvt.rzi.s64.f32 %rd9, %r1;", [bits, 0, 0]), expected as u64, "{a}");
        let half = word16("cvt.u64.u16 %rd4, %rs1;\nmov.b16 %rs9, %rs1;", [f16::from_f32(a).to_bits(), 0, 0]);
        assert_eq!(half, f16::from_f32(a).to_bits());
        let narrow = word("cvt.rn.f16.f32 %rs9, %r1;\ncvt.u64.u16 %rd9, %rs9;", [bits, 0, 0]) as u16;
        assert!(narrow == f16::from_f32(a).to_bits() || a.is_nan(), "{a}");
        let narrow = word("cvt.rn.bf16.f32 %rs9, %r1;\ncvt.u64.u16 %rd9, %rs9;", [bits, 0, 0]) as u16;
        assert!(narrow == bf16::from_f32(a).to_bits() || a.is_nan(), "{a}");
        let wide = f64::from_bits(word("cvt.f64.f32 %rd9, %r1;", [bits, 0, 0]));
        assert!(wide == f64::from(a) || a.is_nan());
    }
    let n = -(1i64 << 40) - 1;
    assert_eq!(word32("cvt.rn.f32.s64 %r9, %rd1;", [5, 0, 0]), 5f32.to_bits());
    let got = word("cvt.rn.f64.s64 %rd9, %rd1;", [n as u64, 0, 0]);
    assert_eq!(f64::from_bits(got), n as f64);
    let packed = word32("cvt.rn.f16x2.f32 %r9, %r1, %r2;", [1f32.to_bits(), 2f32.to_bits(), 0]);
    assert_eq!(
        packed,
        u32::from(f16::from_f32(1.0).to_bits()) << 16 | u32::from(f16::from_f32(2.0).to_bits())
    );
}

#[test]
fn halves_compute() {
    let bits = |v: f32| f16::from_f32(v).to_bits();
    assert_eq!(word16("add.rn.f16 %rs9, %rs1, %rs2;", [bits(1.0), bits(2.5), 0]), bits(3.5));
    assert_eq!(word16("fma.rn.f16 %rs9, %rs1, %rs2, %rs3;", [bits(3.0), bits(2.0), bits(1.0)]), bits(7.0));
    let brain = |v: f32| bf16::from_f32(v).to_bits();
    assert_eq!(word16("mul.rn.bf16 %rs9, %rs1, %rs2;", [brain(3.0), brain(2.0), 0]), brain(6.0));
    let two = |a: f32, b: f32| u32::from(bits(a)) << 16 | u32::from(bits(b));
    assert_eq!(word32("add.rn.f16x2 %r9, %r1, %r2;", [two(1.0, 2.0), two(3.0, 4.0), 0]), two(4.0, 6.0));
}

/// Runs a kernel `k` on a buffer of words, which it gives back.
fn grid(body: &str, launch: &Launch, words: usize) -> Result<Vec<u32>, Trouble> {
    let text = format!(
        ".version 7.8\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n.reg .pred %p<5>;\n\
         .reg .b32 %r<20>;\n.reg .b64 %rd<10>;\n.shared .align 4 .b8 sh[256];\n.local .align 8 .b8 depot[16];\n\
         ld.param.b64 %rd1, [p];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\nmov.u32 %r3, %ntid.x;\n\
         mad.lo.s32 %r4, %r2, %r3, %r1;\nmul.wide.u32 %rd2, %r4, 4;\nadd.s64 %rd3, %rd1, %rd2;\n{body}\nret;\n}}\n"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Buffers::new();
    let base = memory.add(vec![0; words * 4]);
    let kernel = module.kernel("k").expect("it is there");
    run(kernel, launch, &base.to_le_bytes(), &mut memory).map_err(|f| f.trouble)?;
    let bytes = memory.bytes(base).expect("it is there");
    Ok(bytes.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[test]
fn threads_meet_at_barriers_and_share_memory() {
    let body = "shl.b32 %r5, %r1, 2;\nmov.b32 %r6, sh;\nadd.s32 %r7, %r6, %r5;\nst.shared.b32 [%r7], %r1;\nbar.sync 0;\n\
                sub.s32 %r8, 252, %r5;\nadd.s32 %r9, %r6, %r8;\nld.shared.b32 %r10, [%r9];\nst.global.b32 [%rd3], %r10;";
    for reverse in [false, true] {
        let launch = Launch { reverse, ..Launch::new(2, 64) };
        let expected: Vec<u32> = (0..128).map(|n| 63 - n % 64).collect();
        assert_eq!(grid(body, &launch, 128), Ok(expected));
    }
}

#[test]
fn lanes_part_and_come_together() {
    // Each thread counts to its number, odd ones adding 100 once.
    let body = "mov.b32 %r5, 0;\nmov.b32 %r6, 0;\nand.b32 %r7, %r1, 1;\nsetp.eq.b32 %p1, %r7, 0;\n@%p1 bra $loop;\n\
                add.s32 %r6, %r6, 100;\n$loop:\nsetp.ge.u32 %p2, %r5, %r1;\n@%p2 bra $end;\nadd.s32 %r5, %r5, 1;\n\
                add.s32 %r6, %r6, 1;\nbra.uni $loop;\n$end:\nst.global.b32 [%rd3], %r6;";
    let expected: Vec<u32> = (0..40).map(|n| n + 100 * (n % 2)).collect();
    assert_eq!(grid(body, &Launch::new(1, 40), 40), Ok(expected));
}

#[test]
fn warps_shuffle_vote_and_add_atomically() {
    let body = "shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;\nst.global.b32 [%rd3], %r5;";
    assert_eq!(grid(body, &Launch::new(1, 32), 32), Ok((0..32).map(|n| n ^ 1).collect()));
    let body = "shfl.sync.down.b32 %r5|%p1, %r1, 4, 31, -1;\nselp.b32 %r5, %r5, 99, %p1;\nst.global.b32 [%rd3], %r5;";
    assert_eq!(
        grid(body, &Launch::new(1, 32), 32),
        Ok((0..32).map(|n| if n < 28 { n + 4 } else { 99 }).collect())
    );
    let body = "setp.lt.u32 %p1, %r1, 3;\nvote.sync.ballot.b32 %r5, %p1, -1;\nst.global.b32 [%rd3], %r5;";
    assert_eq!(grid(body, &Launch::new(1, 32), 32), Ok(vec![7; 32]));
    let body = "atom.global.add.u32 %r5, [%rd1], %r1;\nred.global.max.u32 [%rd1+4], %r4;";
    assert_eq!(grid(body, &Launch::new(2, 40), 2), Ok(vec![1560, 79]));
}

#[test]
fn local_memory_is_each_threads_own() {
    let body = "mov.b64 %rd4, depot;\ncvta.local.u64 %rd5, %rd4;\nst.local.b32 [%rd4+4], %r4;\nbar.sync 0;\n\
                ld.b32 %r5, [%rd5+4];\nst.global.b32 [%rd3], %r5;";
    assert_eq!(grid(body, &Launch::new(2, 40), 80), Ok((0..80).collect()));
}

#[test]
fn what_goes_wrong_has_a_name() {
    let half = "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $end;\nbar.sync 0;\n$end:";
    assert_eq!(grid(half, &Launch::new(1, 64), 1), Err(Trouble::Divergent));
    let within = "setp.lt.u32 %p1, %r1, 3;\n@%p1 bra $end;\nbar.sync 0;\n$end:";
    assert_eq!(grid(within, &Launch::new(1, 32), 1), Err(Trouble::Divergent));
    let endless = "$loop:\nbra.uni $loop;";
    assert_eq!(grid(endless, &Launch { limit: 10_000, ..Launch::new(1, 1) }, 1), Err(Trouble::Limit));
    assert_eq!(grid("trap;", &Launch::new(1, 1), 1), Err(Trouble::Trap));
    let beyond = grid("st.global.b32 [%rd3+4], %r1;", &Launch::new(1, 4), 4);
    assert!(matches!(beyond, Err(Trouble::Illegal { store: true, size: 4, .. })), "{beyond:?}");
    let odd = grid("ld.global.b32 %r5, [%rd3+2];", &Launch::new(1, 1), 4);
    assert!(matches!(odd, Err(Trouble::Misaligned { .. })), "{odd:?}");
    let shared = grid("ld.shared.b32 %r5, [sh+256];", &Launch::new(1, 1), 4);
    assert!(matches!(shared, Err(Trouble::Illegal { store: false, .. })), "{shared:?}");
}

#[test]
fn texts_of_no_sense_are_refused() {
    for (body, wanted) in [
        ("frob.b32 %r1, %r2;", "frob.b32"),
        ("add.s32 %r1, %r99, 1;", "%r99"),
        ("bra $nowhere;", "$nowhere"),
        ("ld.global.b32 %rs1, [%rd1];", "narrower"),
        ("add.rz.f32 %r1, %r2, %r3;", "add.rz.f32"),
        ("add.s32 %r1, %r2;", "add.s32"),
        ("ld.global.b32 %r1, [%rd1", "']' expected"),
        ("mov.b32 %r1, 0xzz;", "0xzz"),
    ] {
        let error = Module::parse(&text(body)).expect_err(body);
        assert!(error.message.contains(wanted) && error.line >= 21, "{body}: {error}");
    }
    // No text makes it panic.
    let good = text("add.s32 %r9, %r1, %r2;");
    for end in 0..good.len() {
        let _ = Module::parse(&good[..end]);
        let mut cut = good.clone();
        cut.remove(end);
        let _ = Module::parse(&cut);
    }
}

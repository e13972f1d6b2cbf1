//! Matrix products through cuBLASLt's C interface, against sums written out.

#![allow(unsafe_code, non_snake_case, reason = "functions of C are called")]

use djinn_cuda_emulator as _;
use half::{bf16, f16};
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

type Handle = *mut c_void;

unsafe extern "C" {
    safe fn cuInit(flags: c_uint) -> c_int;
    fn cuDevicePrimaryCtxRetain(to: *mut Handle, n: c_int) -> c_int;
    fn cuCtxSetCurrent(context: Handle) -> c_int;
    fn cuMemAlloc_v2(to: *mut u64, size: usize) -> c_int;
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, size: usize) -> c_int;
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, size: usize) -> c_int;
    fn cublasLtCreate(to: *mut Handle) -> c_int;
    fn cublasLtDestroy(h: Handle) -> c_int;
    fn cublasLtMatrixLayoutCreate(
        to: *mut Handle,
        element: c_int,
        rows: u64,
        cols: u64,
        stride: i64,
    ) -> c_int;
    fn cublasLtMatrixLayoutSetAttribute(h: Handle, what: c_int, from: *const c_void, size: usize) -> c_int;
    fn cublasLtMatmulDescCreate(to: *mut Handle, compute: c_int, scale: c_int) -> c_int;
    fn cublasLtMatmulDescSetAttribute(h: Handle, what: c_int, from: *const c_void, size: usize) -> c_int;
    fn cublasLtMatmulPreferenceCreate(to: *mut Handle) -> c_int;
    fn cublasLtMatmulAlgoGetHeuristic(
        library: Handle,
        desc: Handle,
        a: Handle,
        b: Handle,
        c: Handle,
        d: Handle,
        preference: Handle,
        wanted: c_int,
        results: *mut c_void,
        count: *mut c_int,
    ) -> c_int;
    fn cublasLtMatmul(
        library: Handle,
        desc: Handle,
        alpha: *const c_void,
        a: *const c_void,
        a_layout: Handle,
        b: *const c_void,
        b_layout: Handle,
        beta: *const c_void,
        c: *const c_void,
        c_layout: Handle,
        d: *mut c_void,
        d_layout: Handle,
        algorithm: *const c_void,
        workspace: *mut c_void,
        room: usize,
        stream: Handle,
    ) -> c_int;
}

fn made(f: impl FnOnce(*mut Handle) -> c_int) -> Handle {
    let mut out = null_mut();
    assert_eq!(f(&raw mut out), 0);
    out
}

/// Small numbers, exact in every type.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32).map(|n| ((n * 7 + seed * 3) % 13) as f32 - 6.0).collect()
}

/// An element type: cuBLASLt's number, to and from bytes.
#[derive(Clone, Copy)]
struct Element(c_int);

impl Element {
    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self.0 {
            0 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            2 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        }
    }

    fn values(self, bytes: &[u8]) -> Vec<f32> {
        match self.0 {
            0 => bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            2 => bytes.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            _ => bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        }
    }
}

fn upload(bytes: &[u8]) -> u64 {
    let mut to = 0;
    // SAFETY: the bytes are there.
    unsafe {
        assert_eq!(cuMemAlloc_v2(&raw mut to, bytes.len()), 0);
        assert_eq!(cuMemcpyHtoD_v2(to, bytes.as_ptr().cast(), bytes.len()), 0);
    }
    to
}

/// A batch of matrices, columns `stride` elements apart.
struct Matrix {
    rows: usize,
    cols: usize,
    stride: usize,
    values: Vec<f32>,
}

const BATCH: usize = 3;

impl Matrix {
    fn new(rows: usize, cols: usize, seed: u32) -> Self {
        let stride = rows + 1;
        Self { rows, cols, stride, values: numbers(BATCH * stride * cols, seed) }
    }

    fn at(&self, batch: usize, row: usize, col: usize) -> f32 {
        self.values[(batch * self.cols + col) * self.stride + row]
    }

    fn layout(&self, element: Element) -> Handle {
        let (batch, apart) = (BATCH as c_int, (self.stride * self.cols) as i64);
        // SAFETY: the attributes are a 32-bit and a 64-bit number.
        unsafe {
            let out = made(|to| {
                cublasLtMatrixLayoutCreate(
                    to,
                    element.0,
                    self.rows as u64,
                    self.cols as u64,
                    self.stride as i64,
                )
            });
            assert_eq!(cublasLtMatrixLayoutSetAttribute(out, 5, (&raw const batch).cast(), 4), 0);
            assert_eq!(cublasLtMatrixLayoutSetAttribute(out, 6, (&raw const apart).cast(), 8), 0);
            out
        }
    }
}

fn check(element: Element, out: Element, transposed: [bool; 2], bias: bool) {
    let (m, n, k) = (4, 3, 5);
    let a = if transposed[0] { Matrix::new(k, m, 1) } else { Matrix::new(m, k, 1) };
    let b = if transposed[1] { Matrix::new(n, k, 2) } else { Matrix::new(k, n, 2) };
    let c = Matrix::new(m, n, 3);
    let biases = numbers(m, 5);
    let (da, db) = (upload(&element.bytes(&a.values)), upload(&element.bytes(&b.values)));
    let (dc, dbias) = (upload(&out.bytes(&c.values)), upload(&out.bytes(&biases)));
    let (alpha, beta) = (2.0f32, -1.0f32);
    let mut back = out.bytes(&c.values);
    // SAFETY: every pointer is to what the function's prototype asks for.
    unsafe {
        let library = made(|to| cublasLtCreate(to));
        let desc = made(|to| cublasLtMatmulDescCreate(to, 68, 0));
        for (what, t) in [(3, transposed[0]), (4, transposed[1])] {
            let t = c_int::from(t);
            assert_eq!(cublasLtMatmulDescSetAttribute(desc, what, (&raw const t).cast(), 4), 0);
        }
        if bias {
            let epilogue = 4u32;
            assert_eq!(cublasLtMatmulDescSetAttribute(desc, 7, (&raw const epilogue).cast(), 4), 0);
            assert_eq!(cublasLtMatmulDescSetAttribute(desc, 8, (&raw const dbias).cast(), 8), 0);
        }
        let (la, lb, lc) = (a.layout(element), b.layout(element), c.layout(out));
        let preference = made(|to| cublasLtMatmulPreferenceCreate(to));
        let (mut result, mut count) = ([0u64; 12], 0);
        let found = cublasLtMatmulAlgoGetHeuristic(
            library,
            desc,
            la,
            lb,
            lc,
            lc,
            preference,
            1,
            result.as_mut_ptr().cast(),
            &raw mut count,
        );
        assert_eq!((found, count), (0, 1));
        let (alpha, beta) = ((&raw const alpha).cast(), (&raw const beta).cast());
        let pointer = |address: u64| address as *const c_void;
        let status = cublasLtMatmul(
            library,
            desc,
            alpha,
            pointer(da),
            la,
            pointer(db),
            lb,
            beta,
            pointer(dc),
            lc,
            pointer(dc).cast_mut(),
            lc,
            result.as_ptr().cast(),
            null_mut(),
            0,
            null_mut(),
        );
        assert_eq!(status, 0);
        assert_eq!(cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), dc, back.len()), 0);
        assert_eq!(cublasLtDestroy(library), 0);
    }
    let actual = Matrix { values: out.values(&back), ..Matrix::new(m, n, 3) };
    for batch in 0..BATCH {
        for (row, bias_value) in biases.iter().enumerate() {
            for col in 0..n {
                let left = |i| if transposed[0] { a.at(batch, i, row) } else { a.at(batch, row, i) };
                let right = |i| if transposed[1] { b.at(batch, col, i) } else { b.at(batch, i, col) };
                let sum: f32 = (0..k).map(|i| left(i) * right(i)).sum();
                let expected = 2.0 * sum - c.at(batch, row, col) + if bias { *bias_value } else { 0.0 };
                // Whole numbers up to 256 are exact in every type, larger ones nearly so.
                let got = actual.at(batch, row, col);
                assert!((got - expected).abs() <= expected.abs() / 128.0, "{got} {expected}");
            }
        }
    }
}

#[test]
fn products_are_those_of_the_textbook() {
    assert_eq!(cuInit(0), 0);
    let mut context = null_mut();
    // SAFETY: the pointer is to a handle.
    unsafe {
        assert_eq!(cuDevicePrimaryCtxRetain(&raw mut context, 0), 0);
        assert_eq!(cuCtxSetCurrent(context), 0);
    }
    for (element, out) in [(0, 0), (2, 2), (14, 14), (2, 0), (14, 0)] {
        for transposed in [[false, false], [true, false], [false, true], [true, true]] {
            check(Element(element), Element(out), transposed, false);
            check(Element(element), Element(out), transposed, true);
        }
    }
    let _ = null::<u8>();
}

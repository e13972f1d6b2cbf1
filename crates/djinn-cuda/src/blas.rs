//! Matrix products of cuBLASLt.

use crate::device::Device;
use crate::stream::Stream;
use cudarc::cublaslt::{result, result::CublasError, sys};
use djinn_diag::{Diagnostic, Result, internal, unsupported};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use sys::{cublasLtMatmulDescAttributes_t as Desc, cublasLtMatrixLayoutAttribute_t as Layout};

/// What the library must have, lest `cudarc` panics.
const FUNCTIONS: [&str; 10] = [
    "cublasLtCreate",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutSetAttribute",
    "cublasLtDestroy",
];

/// Products whose algorithms are kept.
const MAX_PREPARED: usize = 4096;

/// Element types of a product: those of its operands and of its result are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GemmType {
    /// 32-bit floats, multiplied and summed as such (no TF32).
    F32,
    /// 64-bit floats.
    F64,
    /// 16-bit floats, summed in 32 bits.
    F16,
    /// bfloat16, summed in 32 bits.
    Bf16,
}

/// A product `d = a · b` of row-major matrices, `a` of `m` × `k` and `b` of `k` × `n`, for so many pairs of them. No size
/// is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gemm {
    /// Element type.
    pub ty: GemmType,
    /// Rows of `a` and `d`.
    pub m: u64,
    /// Columns of `b` and `d`.
    pub n: u64,
    /// Columns of `a`, rows of `b`.
    pub k: u64,
    /// Is `a` stored as its transpose, `k` × `m`?
    pub transposed_a: bool,
    /// Is `b` stored as its transpose, `n` × `k`?
    pub transposed_b: bool,
    /// Number of products.
    pub batch: u32,
    /// Elements from one `a` to the next; 0 if all share one.
    pub stride_a: i64,
    /// Elements from one `b` to the next; 0 if all share one.
    pub stride_b: i64,
}

/// cuBLASLt on a GPU.
pub struct Blas {
    // Dropped before the handle is.
    prepared: Mutex<BTreeMap<Key, Arc<Prepared>>>,
    device: Device,
    handle: sys::cublasLtHandle_t,
}

/// What an algorithm is chosen for: the product, the alignment of `b`, `a` and `d` in bytes, and the scratch memory.
type Key = (Gemm, [u32; 3], u64);

impl fmt::Debug for Blas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blas").field("device", &self.device).finish_non_exhaustive()
    }
}

#[allow(unsafe_code, reason = "a handle is known by address")]
// SAFETY: handles of cuBLASLt may be used by several threads (cuBLAS documentation, "cublasLtHandle_t").
unsafe impl Send for Blas {}
#[allow(unsafe_code, reason = "a handle is known by address")]
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl Blas {
    /// Loads the library as the loader finds it (`libcublasLt.so.12` and such).
    ///
    /// # Errors
    /// `cuda.blas` if it is not there or refuses.
    #[allow(unsafe_code, reason = "the library is loaded")]
    pub fn new(device: &Device) -> Result<Blas> {
        // SAFETY: loading the library runs its initialisers and nothing of ours.
        let is_there = unsafe { sys::is_culib_present() };
        // SAFETY: as above; the function is looked up and not called.
        let has = |name: &[u8]| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name).is_ok() };
        if !is_there || !FUNCTIONS.iter().all(|name| has(name.as_bytes())) {
            let problem =
                unsupported("cuda.blas", "this machine has no cuBLASLt that works (libcublasLt.so.12)");
            return Err(problem.help("products then run as generated kernels, which are slower"));
        }
        device.make_current()?;
        let handle = result::create_handle().map_err(|e| failed("opening cuBLASLt", e))?;
        Ok(Blas { prepared: Mutex::default(), device: device.clone(), handle })
    }

    /// Enqueues a product: addresses of `a`, `b` and `d`, and of scratch memory with its number of bytes.
    ///
    /// # Errors
    /// `cuda.blas` if the library has no algorithm for it.
    ///
    /// # Safety
    /// The matrices and the scratch memory live until the stream has passed, and `d` overlaps nothing.
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    pub unsafe fn run(
        &self,
        gemm: &Gemm,
        [a, b, d]: [u64; 3],
        workspace: (u64, u64),
        stream: &Stream,
    ) -> Result<()> {
        self.device.make_current()?;
        let alignments = [b, a, d].map(alignment);
        let prepared = self.prepare((*gemm, alignments, workspace.1));
        let prepared = prepared.map_err(|error| failed(&describe(gemm), error))?;
        // SAFETY: the descriptors are alive, and the addresses are the caller's.
        let done = unsafe { prepared.run(self.handle, gemm.ty, [a, b, d], workspace, stream) };
        done.map_err(|error| failed(&describe(gemm), error))
    }

    /// Descriptors and algorithm of a product; asking the library takes longer than many a product.
    fn prepare(&self, key: Key) -> std::result::Result<Arc<Prepared>, CublasError> {
        let mut known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = known.get(&key) {
            return Ok(Arc::clone(prepared));
        }
        if known.len() >= MAX_PREPARED {
            known.clear();
        }
        let prepared = Arc::new(Prepared::new(self.handle, &key)?);
        known.insert(key, Arc::clone(&prepared));
        Ok(prepared)
    }
}

/// The largest power of two that an address is a multiple of, up to what cuBLASLt reckons with by itself (256).
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

impl Drop for Blas {
    #[allow(unsafe_code, reason = "the library is called")]
    fn drop(&mut self) {
        if self.device.make_current().is_ok() {
            // SAFETY: the handle is destroyed once; descriptors do not need it.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

fn describe(gemm: &Gemm) -> String {
    let Gemm { m, n, k, batch, ty, .. } = gemm;
    format!("multiplying {batch} × {m}×{k} by {k}×{n} {ty:?}")
}

fn failed(what: &str, error: CublasError) -> Box<Diagnostic> {
    use sys::cublasStatus_t as S;
    let message = format!("{what}: {:?}", error.0);
    match error.0 {
        S::CUBLAS_STATUS_INVALID_VALUE => internal("cuda.blas", message),
        _ => unsupported("cuda.blas", message),
    }
}

/// The descriptors of a product. cuBLASLt reads matrices by columns, so that what is stored by rows is its transpose to
/// it: it is asked for `dᵀ = bᵀ · aᵀ`.
struct Prepared {
    /// The algorithm that the library chose.
    algorithm: sys::cublasLtMatmulAlgo_t,
    desc: sys::cublasLtMatmulDesc_t,
    preference: sys::cublasLtMatmulPreference_t,
    /// Of `b`, `a` and `d`.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
}

impl Prepared {
    #[allow(unsafe_code, reason = "the library is called")]
    fn new(
        handle: sys::cublasLtHandle_t,
        (gemm, alignments, workspace): &Key,
    ) -> std::result::Result<Prepared, CublasError> {
        let mut made = Prepared {
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            desc: std::ptr::null_mut(),
            preference: std::ptr::null_mut(),
            layouts: [std::ptr::null_mut(); 3],
        };
        let (data, scale, compute) = types(gemm.ty);
        made.desc = result::create_matmul_desc(compute, scale)?;
        for (attribute, transposed) in [
            (Desc::CUBLASLT_MATMUL_DESC_TRANSA, gemm.transposed_b),
            (Desc::CUBLASLT_MATMUL_DESC_TRANSB, gemm.transposed_a),
        ] {
            // `CUBLAS_OP_N` and `CUBLAS_OP_T`.
            let value = i32::from(transposed);
            // SAFETY: the descriptor is alive, the attribute is an i32.
            unsafe { result::set_matmul_desc_attribute(made.desc, attribute, (&raw const value).cast(), 4)? }
        }
        let Gemm { m, n, k, .. } = *gemm;
        let stored = |rows: u64, columns: u64, transposed: bool| match transposed {
            false => (columns, rows),
            true => (rows, columns),
        };
        let shapes = [stored(k, n, gemm.transposed_b), stored(m, k, gemm.transposed_a), (n, m)];
        let strides = [gemm.stride_b, gemm.stride_a, (m * n) as i64];
        for ((layout, (rows, columns)), stride) in made.layouts.iter_mut().zip(shapes).zip(strides) {
            *layout = result::create_matrix_layout(data, rows, columns, rows as i64)?;
            set_batch(*layout, gemm.batch, stride)?;
        }
        made.preference = result::create_matmul_pref()?;
        made.prefer(alignments, *workspace)?;
        let [layout_b, layout_a, layout_d] = made.layouts;
        let (desc, preference) = (made.desc, made.preference);
        // SAFETY: all descriptors are alive.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                handle, desc, layout_b, layout_a, layout_d, layout_d, preference,
            )?
        };
        made.algorithm = found.algo;
        Ok(made)
    }

    /// Says how much scratch memory there is, and how the matrices are aligned.
    #[allow(unsafe_code, reason = "the library is called")]
    fn prefer(&self, [b, a, d]: &[u32; 3], workspace: u64) -> std::result::Result<(), CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as P;
        let set = |which: P, value: *const c_void, bytes: usize| {
            // SAFETY: the preference is alive; the attribute has so many bytes.
            unsafe { result::set_matmul_pref_attribute(self.preference, which, value, bytes) }
        };
        set(P::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), 8)?;
        for (which, alignment) in [
            (P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, d),
            (P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d),
        ] {
            set(which, std::ptr::from_ref(alignment).cast(), 4)?;
        }
        Ok(())
    }

    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    unsafe fn run(
        &self,
        handle: sys::cublasLtHandle_t,
        ty: GemmType,
        [a, b, d]: [u64; 3],
        workspace: (u64, u64),
        stream: &Stream,
    ) -> std::result::Result<(), CublasError> {
        let at = |address: u64| std::ptr::without_provenance_mut::<c_void>(address as usize);
        let [layout_b, layout_a, layout_d] = self.layouts;
        let single = ([1f32, 0.0], [1f64, 0.0]);
        let [alpha, beta]: [*const c_void; 2] = match ty {
            GemmType::F64 => [(&raw const single.1[0]).cast(), (&raw const single.1[1]).cast()],
            _ => [(&raw const single.0[0]).cast(), (&raw const single.0[1]).cast()],
        };
        // SAFETY: all descriptors are alive; the addresses are vouched for by the caller.
        unsafe {
            result::matmul(
                handle,
                self.desc,
                alpha,
                beta,
                at(b),
                layout_b,
                at(a),
                layout_a,
                at(d),
                layout_d,
                at(d),
                layout_d,
                &raw const self.algorithm,
                at(workspace.0),
                workspace.1 as usize,
                stream.raw().cast(),
            )
        }
    }
}

#[allow(unsafe_code, reason = "descriptors are known by address")]
// SAFETY: nothing changes descriptors once they are made.
unsafe impl Send for Prepared {}
#[allow(unsafe_code, reason = "descriptors are known by address")]
// SAFETY: as above.
unsafe impl Sync for Prepared {}

impl Drop for Prepared {
    #[allow(unsafe_code, reason = "the library is called")]
    fn drop(&mut self) {
        // SAFETY: what was made is destroyed once.
        unsafe {
            for layout in self.layouts.iter().filter(|l| !l.is_null()) {
                let _ = result::destroy_matrix_layout(*layout);
            }
            if !self.preference.is_null() {
                let _ = result::destroy_matmul_pref(self.preference);
            }
            if !self.desc.is_null() {
                let _ = result::destroy_matmul_desc(self.desc);
            }
        }
    }
}

#[allow(unsafe_code, reason = "the library is called")]
fn set_batch(
    layout: sys::cublasLtMatrixLayout_t,
    batch: u32,
    stride: i64,
) -> std::result::Result<(), CublasError> {
    let too_many = CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
    let count = i32::try_from(batch).map_err(|_| too_many)?;
    // SAFETY: the layout is alive; the attributes are an i32 and an i64.
    unsafe {
        let which = Layout::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
        result::set_matrix_layout_attribute(layout, which, (&raw const count).cast(), 4)?;
        let which = Layout::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
        result::set_matrix_layout_attribute(layout, which, (&raw const stride).cast(), 8)
    }
}

/// Types of the elements and of the scale, and how sums are taken.
fn types(ty: GemmType) -> (sys::cudaDataType, sys::cudaDataType, sys::cublasComputeType_t) {
    use sys::cublasComputeType_t as C;
    use sys::cudaDataType as D;
    match ty {
        GemmType::F32 => (D::CUDA_R_32F, D::CUDA_R_32F, C::CUBLAS_COMPUTE_32F),
        GemmType::F64 => (D::CUDA_R_64F, D::CUDA_R_64F, C::CUBLAS_COMPUTE_64F),
        GemmType::F16 => (D::CUDA_R_16F, D::CUDA_R_32F, C::CUBLAS_COMPUTE_32F),
        GemmType::Bf16 => (D::CUDA_R_16BF, D::CUDA_R_32F, C::CUBLAS_COMPUTE_32F),
    }
}

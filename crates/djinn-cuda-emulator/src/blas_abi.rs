//! The C interface of cuBLASLt.

use crate::blas::{Element, Epilogue, Layout, Product};
use crate::driver::abi::{Handle, give, handle, id, stream_of, take};
use crate::driver::code::Result as DriverResult;
use crate::driver::state::lock;
use crate::driver::task::Work;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

/// A failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status(c_int);

impl Status {
    const NOT_INITIALIZED: Self = Self(1);
    const INVALID_VALUE: Self = Self(7);
    const EXECUTION_FAILED: Self = Self(13);
    const INTERNAL_ERROR: Self = Self(14);
    const NOT_SUPPORTED: Self = Self(15);
}

/// What describes a product: attributes by number, as bytes.
#[derive(Debug, Clone, Default)]
struct Description {
    compute: c_int,
    scale: c_int,
    attributes: BTreeMap<c_int, Vec<u8>>,
}

/// What handles name.
#[derive(Debug, Clone)]
enum Object {
    Library,
    Layout(Layout),
    Description(Description),
    /// What the four matrices are aligned to, in bytes.
    Preference([u32; 4]),
}

/// Objects by handle.
struct Objects {
    list: BTreeMap<u64, Object>,
    next: u64,
}

static OBJECTS: Mutex<Objects> = Mutex::new(Objects { list: BTreeMap::new(), next: 0x8000_0000 });

fn with<T>(f: impl FnOnce(&mut Objects) -> T) -> T {
    f(&mut OBJECTS.lock().unwrap_or_else(PoisonError::into_inner))
}

fn call(f: impl FnOnce() -> Result<(), Status> + std::panic::UnwindSafe) -> c_int {
    match catch_unwind(f) {
        Ok(Ok(())) => 0,
        Ok(Err(status)) => status.0,
        Err(_) => Status::INTERNAL_ERROR.0,
    }
}

fn invalid<T>(result: DriverResult<T>) -> Result<T, Status> {
    result.map_err(|_| Status::INVALID_VALUE)
}

fn create(to: *mut Handle, object: Object) -> Result<(), Status> {
    let made = with(|o| {
        o.next += 16;
        o.list.insert(o.next, object);
        o.next
    });
    invalid(give(to, handle(made)))
}

fn destroy(h: Handle) -> Result<(), Status> {
    with(|o| o.list.remove(&id(h))).map(|_| ()).ok_or(Status::INVALID_VALUE)
}

fn layout(h: Handle) -> Result<Layout, Status> {
    match with(|o| o.list.get(&id(h)).cloned()) {
        Some(Object::Layout(layout)) => Ok(layout),
        _ => Err(Status::INVALID_VALUE),
    }
}

fn description(h: Handle) -> Result<Description, Status> {
    match with(|o| o.list.get(&id(h)).cloned()) {
        Some(Object::Description(description)) => Ok(description),
        _ => Err(Status::INVALID_VALUE),
    }
}

impl Description {
    fn number(&self, attribute: c_int, default: u64) -> u64 {
        self.attributes
            .get(&attribute)
            .map_or(default, |bytes| bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    /// The product without its matrices' addresses and factors; `None` for what is not supported.
    fn product(&self, [a, b, c, d]: [Layout; 4]) -> Result<Product, Status> {
        let transposed = [self.number(3, 0), self.number(4, 0)];
        let known = [64, 68, 69, 70, 71, 74, 75, 77].contains(&self.compute);
        if !known || self.number(2, 0) != 0 || transposed.iter().any(|t| *t > 2) {
            return Err(Status::NOT_SUPPORTED);
        }
        let epilogue = match self.number(7, 1) {
            1 => Epilogue::default(),
            2 => Epilogue { relu: true, ..Epilogue::default() },
            4 => Epilogue { bias: true, ..Epilogue::default() },
            6 => Epilogue { bias: true, relu: true, ..Epilogue::default() },
            32 => Epilogue { gelu: true, ..Epilogue::default() },
            36 => Epilogue { bias: true, gelu: true, ..Epilogue::default() },
            _ => return Err(Status::NOT_SUPPORTED),
        };
        let bias_type = Element::of(self.number(26, u64::MAX) as i32).unwrap_or(d.element);
        let product = Product {
            a: (0, a),
            b: (0, b),
            c: (0, c),
            d: (0, d),
            transposed: transposed.map(|t| t != 0),
            alpha: 1.0,
            beta: 0.0,
            epilogue,
            bias: (self.number(8, 0), bias_type, self.number(10, 0) as i64),
        };
        if product.sizes().is_none() || a.element != b.element || c.element != d.element {
            return Err(Status::INVALID_VALUE);
        }
        let widens = d.element == a.element || d.element == Element::F32 && a.element.size() == 2;
        if widens { Ok(product) } else { Err(Status::NOT_SUPPORTED) }
    }

    fn factor(&self, from: *const c_void) -> Result<f64, Status> {
        match Element::of(self.scale) {
            Some(Element::F32) => invalid(take(from.cast::<f32>())).map(f64::from),
            Some(Element::F64) => invalid(take(from.cast::<f64>())),
            Some(Element::F16) => invalid(take(from.cast::<u16>())).map(|w| half::f16::from_bits(w).to_f64()),
            _ => Err(Status::NOT_SUPPORTED),
        }
    }
}

fn set_layout(h: Handle, what: c_int, from: *const c_void, size: usize) -> Result<(), Status> {
    let mut l = layout(h)?;
    let int = |wanted: usize| if size >= wanted { Ok(()) } else { Err(Status::INVALID_VALUE) };
    match what {
        0 => {
            int(4)?;
            l.element = Element::of(invalid(take(from.cast()))?).ok_or(Status::NOT_SUPPORTED)?;
        }
        1 => {
            int(4)?;
            l.row_major = match invalid(take(from.cast::<c_int>()))? {
                0 => false,
                1 => true,
                _ => return Err(Status::NOT_SUPPORTED),
            };
        }
        5 => {
            int(4)?;
            l.batch = invalid(take(from.cast()))?;
        }
        2..=4 | 6 => {
            int(8)?;
            let value: i64 = invalid(take(from.cast()))?;
            match what {
                2 => l.rows = value as u64,
                3 => l.cols = value as u64,
                4 => l.stride = value,
                _ => l.batch_stride = value,
            }
        }
        _ => return Err(Status::NOT_SUPPORTED),
    }
    with(|o| o.list.insert(id(h), Object::Layout(l)));
    Ok(())
}

fn set_description(h: Handle, what: c_int, from: *const c_void, size: usize) -> Result<(), Status> {
    let mut d = description(h)?;
    if size > 64 {
        return Err(Status::INVALID_VALUE);
    }
    let bytes =
        (0..size).map(|n| invalid(take(from.cast::<u8>().wrapping_add(n)))).collect::<Result<_, _>>()?;
    match what {
        0 | 1 => return Err(Status::NOT_SUPPORTED),
        _ => d.attributes.insert(what, bytes),
    };
    with(|o| o.list.insert(id(h), Object::Description(d)));
    Ok(())
}

fn heuristic(
    desc: Handle,
    layouts: [Handle; 4],
    preference: Handle,
    results: *mut [u64; 12],
    count: *mut c_int,
) -> Result<(), Status> {
    let [a, b, c, d] = layouts;
    let found = description(desc)?.product([layout(a)?, layout(b)?, layout(c)?, layout(d)?]);
    if let Err(status) = found {
        invalid(give(count, 0))?;
        return Err(status);
    }
    // An algorithm of 8 words, a workspace of no bytes, a state (0) below the number of waves, and reserved words.
    let waves = u64::from(1f32.to_bits()) << 32;
    let [a, b, c, d] = alignments(preference)?.map(u64::from);
    let (ab, cd) = (a << 32 | b, c << 32 | d);
    invalid(give(results, [ALGORITHM, ab, cd, 0, 0, 0, 0, 0, 0, waves, 0, 0]))?;
    invalid(give(count, 1))
}

/// First word of every algorithm.
const ALGORITHM: u64 = 0x646a_696e_6e00_0001;

/// What cuBLASLt takes matrices to be aligned to, unless it is told otherwise (cuBLAS documentation,
/// `CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES` and such).
const USUAL_ALIGNMENT: [u32; 4] = [256; 4];

fn alignments(preference: Handle) -> Result<[u32; 4], Status> {
    match with(|o| o.list.get(&id(preference)).cloned()) {
        Some(Object::Preference(alignments)) => Ok(alignments),
        _ => Err(Status::INVALID_VALUE),
    }
}

fn set_preference(h: Handle, what: c_int, from: *const c_void, size: usize) -> Result<(), Status> {
    let mut all = alignments(h)?;
    // `CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_{A,B,C,D}_BYTES` are 5 to 8.
    let Some(one) = usize::try_from(what - 5).ok().and_then(|n| all.get_mut(n)) else { return Ok(()) };
    if size < 4 {
        return Err(Status::INVALID_VALUE);
    }
    *one = invalid(take(from.cast()))?;
    if !one.is_power_of_two() {
        return Err(Status::INVALID_VALUE);
    }
    with(|o| drop(o.list.insert(id(h), Object::Preference(all))));
    Ok(())
}

/// Are the matrices where the algorithm was told that they are?
fn check_alignment(call: &Call) -> Result<(), Status> {
    if call.algorithm.is_null() {
        return Ok(());
    }
    let [first, ab, cd]: [u64; 3] = invalid(take(call.algorithm.cast()))?;
    let told = [ab >> 32, ab & 0xffff_ffff, cd >> 32, cd & 0xffff_ffff];
    let is_there = |(told, (pointer, _)): (u64, (*const c_void, Handle))| {
        told != 0 && (pointer as usize as u64).is_multiple_of(told)
    };
    match first == ALGORITHM && told.into_iter().zip(call.matrices).all(is_there) {
        true => Ok(()),
        false => Err(Status::INVALID_VALUE),
    }
}

struct Call {
    desc: Handle,
    factors: [*const c_void; 2],
    matrices: [(*const c_void, Handle); 4],
    algorithm: *const c_void,
    stream: Handle,
}

fn matmul(library: Handle, call: &Call) -> Result<(), Status> {
    if !matches!(with(|o| o.list.get(&id(library)).cloned()), Some(Object::Library)) {
        return Err(Status::NOT_INITIALIZED);
    }
    check_alignment(call)?;
    let desc = description(call.desc)?;
    let [a, b, c, d] = call.matrices;
    let mut product = desc.product([layout(a.1)?, layout(b.1)?, layout(c.1)?, layout(d.1)?])?;
    product.alpha = desc.factor(call.factors[0])?;
    product.beta = desc.factor(call.factors[1])?;
    for (matrix, (pointer, _)) in
        [&mut product.a, &mut product.b, &mut product.c, &mut product.d].into_iter().zip(call.matrices)
    {
        matrix.0 = pointer as usize as u64;
        if matrix.0 % u64::from(matrix.1.element.size()) != 0 {
            return Err(Status::INVALID_VALUE);
        }
    }
    if product.epilogue.bias && product.bias.0 == 0 {
        return Err(Status::INVALID_VALUE);
    }
    let mut driver = lock();
    let stream = stream_of(&driver, call.stream).map_err(|_| Status::EXECUTION_FAILED)?;
    let done = driver.enqueue(stream, Work::Product(Arc::new(product)));
    done.map(|_| ()).map_err(|_| Status::EXECUTION_FAILED)
}

/// Exported functions that give a status.
macro_rules! blas {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:expr;)*) => { $(
        #[allow(non_snake_case, unsafe_code, clippy::too_many_arguments, reason = "the function is cuBLASLt's")]
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $ty),*) -> c_int {
            call(move || $body)
        }
    )* };
}

#[allow(non_snake_case, unsafe_code, reason = "the function is cuBLASLt's")]
#[unsafe(no_mangle)]
extern "C" fn cublasLtGetVersion() -> usize {
    120_900
}

blas! {
    fn cublasLtCreate(to: *mut Handle) create(to, Object::Library);
    fn cublasLtDestroy(h: Handle) destroy(h);
    fn cublasLtMatrixLayoutCreate(to: *mut Handle, element: c_int, rows: u64, cols: u64, stride: i64) {
        let element = Element::of(element).ok_or(Status::NOT_SUPPORTED)?;
        let layout = Layout { element, rows, cols, stride, row_major: false, batch: 1, batch_stride: 0 };
        create(to, Object::Layout(layout))
    };
    fn cublasLtMatrixLayoutDestroy(h: Handle) destroy(h);
    fn cublasLtMatrixLayoutSetAttribute(h: Handle, what: c_int, from: *const c_void, size: usize)
        set_layout(h, what, from, size);
    fn cublasLtMatmulDescCreate(to: *mut Handle, compute: c_int, scale: c_int)
        create(to, Object::Description(Description { compute, scale, attributes: BTreeMap::new() }));
    fn cublasLtMatmulDescDestroy(h: Handle) destroy(h);
    fn cublasLtMatmulDescSetAttribute(h: Handle, what: c_int, from: *const c_void, size: usize)
        set_description(h, what, from, size);
    fn cublasLtMatmulPreferenceCreate(to: *mut Handle) create(to, Object::Preference(USUAL_ALIGNMENT));
    fn cublasLtMatmulPreferenceDestroy(h: Handle) destroy(h);
    fn cublasLtMatmulPreferenceSetAttribute(h: Handle, what: c_int, from: *const c_void, size: usize)
        set_preference(h, what, from, size);
    fn cublasLtMatmulAlgoGetHeuristic(
        _library: Handle, desc: Handle, a: Handle, b: Handle, c: Handle, d: Handle, preference: Handle, _wanted: c_int,
        results: *mut [u64; 12], count: *mut c_int,
    ) heuristic(desc, [a, b, c, d], preference, results, count);
    fn cublasLtMatmul(
        library: Handle, desc: Handle, alpha: *const c_void, a: *const c_void, a_layout: Handle, b: *const c_void,
        b_layout: Handle, beta: *const c_void, c: *const c_void, c_layout: Handle, d: *mut c_void, d_layout: Handle,
        algorithm: *const c_void, _workspace: *mut c_void, _room: usize, stream: Handle,
    ) matmul(library, &Call {
        desc,
        factors: [alpha, beta],
        matrices: [(a, a_layout), (b, b_layout), (c, c_layout), (d.cast_const(), d_layout)],
        algorithm,
        stream,
    });
}

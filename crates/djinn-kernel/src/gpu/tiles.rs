//! Sums of products in tiles (V. Volkov and J. Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008).
//!
//! A block computes a tile of rows and columns. It goes over the folded positions in slices: its threads put the slice
//! of both sides in workgroup memory, wait, and every thread adds the products of its own points, which it keeps in
//! registers. What is outside the tensors counts as zero. Stages that only need a point's sum follow at once.

use super::{Gpu, product};
use crate::build::Loop;
use crate::dag::Id;
use crate::levels::{Levels, levels};
use crate::schedule::Nest;
use crate::sides::{Sides, reachable};
use crate::stage::{Goal, Stage};
use djinn_ir::Dim;

/// Folded positions of a slice.
const SLICE: u32 = 16;
/// Rows, and columns, of the points of a thread, at most.
const POINTS: u32 = 4;

/// How a block's threads lie over its tile: thread (y, x) has the points (y + i·threads_y, x + j·threads_x).
#[derive(Clone, Copy)]
struct Shape {
    threads: [u32; 2],
    points: [u32; 2],
}

/// Names of what a tile begins with.
struct Tile {
    /// Numbers of rows and columns in all.
    totals: [String; 2],
    /// First row and first column.
    starts: [String; 2],
    /// The thread's place in the tile.
    thread: [String; 2],
    /// Names of the variables of the batch loops.
    batch: Vec<String>,
}

impl Shape {
    fn new(threads: u32, sides: &Sides) -> Shape {
        let columns = 1 << threads.ilog2().div_ceil(2);
        let threads = [threads / columns, columns];
        let points = |loops: &[Loop], threads: u32| match product(loops).as_const() {
            Some(n) if n <= i64::from(threads) => 1,
            Some(n) if n <= i64::from(2 * threads) => 2,
            _ => POINTS,
        };
        Shape { threads, points: [points(&sides.rows, threads[0]), points(&sides.columns, threads[1])] }
    }

    fn extent(&self, side: usize) -> u32 {
        self.threads[side] * self.points[side]
    }

    /// Elements of workgroup memory from one folded position to the next: one more than needed, so that threads that
    /// write neighbouring positions use different banks.
    fn stride(&self, side: usize) -> u32 {
        self.extent(side) + 1
    }
}

impl Gpu<'_> {
    /// Every block takes tiles in steps of the grid; the number of tiles.
    pub(super) fn tiles(&mut self, nest: &Nest, sides: &Sides) -> Dim {
        let Some((stage, rest)) = nest.stages.split_first() else { return Dim::ONE };
        let shape = Shape::new(self.block, sides);
        let ty = self.dag.ty(sides.left);
        for (side, name) in ["%left", "%right"].into_iter().enumerate() {
            self.shared.push((name.to_owned(), SLICE * shape.stride(side), ty));
        }
        let levels = levels(self.dag, stage, 0);
        let (tile, counts) = self.open_tile(sides, shape);
        let names = self.w.names.clone();
        self.bind(&levels, &sides.batch, &tile.batch);
        let sums = self.sums(&levels, sides, shape, &tile);
        self.leave_sums(stage, &levels, sides, shape, (&tile, &sums));
        self.w.names.clone_from(&names);
        if !rest.is_empty() {
            self.follow(nest, sides, shape, &tile);
        }
        self.w.names = names;
        self.w.close("}");
        counts
    }

    /// Opens the loop over tiles.
    fn open_tile(&mut self, sides: &Sides, shape: Shape) -> (Tile, Dim) {
        let x = self.int(shape.threads[1]);
        let thread = self.thread.clone();
        let thread = [self.index2("divui", &thread, &x), self.index2("remui", &thread, &x)];
        let totals = [self.count(&sides.rows), self.count(&sides.columns)];
        let batch = self.count(&sides.batch);
        let mut tiles = Vec::new();
        for (side, total) in totals.iter().enumerate() {
            let (extent, last) = (self.int(shape.extent(side)), self.int(shape.extent(side) - 1));
            let rounded = self.index2("addi", total, &last);
            tiles.push(self.index2("divui", &rounded, &extent));
        }
        let all = self.index2("muli", &tiles[0], &tiles[1]);
        let all = self.index2("muli", &all, &batch);
        let (block, blocks) = (self.block_number.clone(), self.blocks.clone());
        let number = self.open(&block, &all, &blocks);
        let column = self.index2("remui", &number, &tiles[1]);
        let rest = self.index2("divui", &number, &tiles[1]);
        let row = self.index2("remui", &rest, &tiles[0]);
        let batch = self.index2("divui", &rest, &tiles[0]);
        let mut start = |side: usize, tile: &str| {
            let extent = self.int(shape.extent(side));
            self.index2("muli", tile, &extent)
        };
        let starts = [start(0, &row), start(1, &column)];
        let batch = self.apart(&batch, &sides.batch);
        let count =
            |loops: &[Loop], side: usize| product(loops).ceil_div(&Dim::from(i64::from(shape.extent(side))));
        let counts = &(&count(&sides.rows, 0) * &count(&sides.columns, 1)) * &product(&sides.batch);
        (Tile { totals, starts, thread, batch }, counts)
    }

    /// The sums of the thread's points, row by row.
    fn sums(&mut self, levels: &Levels, sides: &Sides, shape: Shape, tile: &Tile) -> Vec<String> {
        let ty = self.dag.ty(sides.left);
        let zero =
            self.w.op(&format!("arith.constant {} : {}", if ty.is_float() { "0.0" } else { "0" }, ty.mlir()));
        let n = (shape.points[0] * shape.points[1]) as usize;
        let depth = self.count(&sides.folded);
        let (start, slice) = (self.zero.clone(), self.int(SLICE));
        let (sums, from, carried) =
            self.open_sums((&start, &depth, &slice), vec![zero.clone(); n], ty.mlir());
        for side in 0..2 {
            self.fill(levels, sides, shape, tile, (side, &from, &depth, &zero));
        }
        self.w.line("gpu.barrier");
        let one = self.one.clone();
        let (added, k, inner) = self.open_sums((&start, &slice, &one), carried, ty.mlir());
        let values: [Vec<String>; 2] = [0, 1].map(|side| {
            let stride = self.int(shape.stride(side));
            let row = self.index2("muli", &k, &stride);
            let first = self.index2("addi", &row, &tile.thread[side]);
            (0..shape.points[side])
                .map(|i| {
                    let offset = self.int(i * shape.threads[side]);
                    let at = self.index2("addi", &first, &offset);
                    self.load_shared(side, &at)
                })
                .collect()
        });
        let mut next = Vec::with_capacity(n);
        for (i, a) in values[0].iter().enumerate() {
            for (j, b) in values[1].iter().enumerate() {
                let sum = &inner[i * values[1].len() + j];
                next.push(self.multiply_add(ty, a, b, sum));
            }
        }
        self.yield_sums(&next, ty.mlir());
        self.w.line("gpu.barrier");
        self.yield_sums(&results(&added, n), ty.mlir());
        results(&sums, n)
    }

    fn multiply_add(&mut self, ty: crate::dag::Ty, a: &str, b: &str, sum: &str) -> String {
        let (mul, add) = match ty.is_float() {
            true => ("arith.mulf", "arith.addf"),
            false => ("arith.muli", "arith.addi"),
        };
        let flags = if ty.is_float() { " fastmath<contract>" } else { "" };
        let product = self.w.op(&format!("{mul} {a}, {b}{flags} : {}", ty.mlir()));
        self.w.op(&format!("{add} {sum}, {product}{flags} : {}", ty.mlir()))
    }

    /// Opens a loop that carries sums; the names of its results, its variable and what it carries.
    fn open_sums(
        &mut self,
        (from, to, step): (&str, &str, &str),
        first: Vec<String>,
        ty: &str,
    ) -> (String, String, Vec<String>) {
        let (result, var) = (self.w.fresh(), self.w.fresh());
        let carried: Vec<String> = first.iter().map(|_| self.w.fresh()).collect();
        let pairs: Vec<String> = carried.iter().zip(&first).map(|(c, f)| format!("{c} = {f}")).collect();
        let count = if first.len() > 1 { format!(":{}", first.len()) } else { String::new() };
        self.w.open(&format!(
            "{result}{count} = scf.for {var} = {from} to {to} step {step} iter_args({}) -> ({}) : i64 {{",
            pairs.join(", "),
            vec![ty; first.len()].join(", ")
        ));
        (result, var, carried)
    }

    fn yield_sums(&mut self, sums: &[String], ty: &str) {
        self.w.line(&format!("scf.yield {} : {}", sums.join(", "), vec![ty; sums.len()].join(", ")));
        self.w.close("}");
    }

    /// All threads put a slice of one side in workgroup memory.
    fn fill(
        &mut self,
        levels: &Levels,
        sides: &Sides,
        shape: Shape,
        tile: &Tile,
        (side, from, depth, zero): (usize, &str, &str, &str),
    ) {
        let (value, loops) =
            if side == 0 { (sides.left, &sides.rows) } else { (sides.right, &sides.columns) };
        let extent = shape.extent(side);
        let (thread, threads) = (self.thread.clone(), self.threads.clone());
        let all = self.int(extent * SLICE);
        let element = self.open(&thread, &all, &threads);
        // Neighbouring threads read neighbours in memory.
        let along = self.is_along(loops, value);
        let fast = self.int(if along { extent } else { SLICE });
        let (low, high) = (self.index2("remui", &element, &fast), self.index2("divui", &element, &fast));
        let (i, k) = if along { (low, high) } else { (high, low) };
        let row = self.index2("addi", &tile.starts[side], &i);
        let position = self.index2("addi", from, &k);
        let total = tile.totals[side].clone();
        let inside = self.both_below((&row, &total), (&position, depth));
        let ty = self.dag.ty(value).mlir();
        let result = self.w.fresh();
        self.w.open(&format!("{result} = scf.if {inside} -> ({ty}) {{"));
        let names = self.w.names.clone();
        let at = self.apart(&row, loops);
        self.bind(levels, loops, &at);
        let at = self.apart(&position, &sides.folded);
        self.bind(levels, &sides.folded, &at);
        self.expressions(&[value]);
        let computed = self.w.names[&value].clone();
        self.w.line(&format!("scf.yield {computed} : {ty}"));
        self.w.names = names;
        self.w.close("} else {");
        self.w.indent += 1;
        self.w.line(&format!("scf.yield {zero} : {ty}"));
        self.w.close("}");
        let stride = self.int(shape.stride(side));
        let place = self.index2("muli", &k, &stride);
        let place = self.index2("addi", &place, &i);
        let (name, memory) = self.memory(side);
        let place = self.w.op(&format!("arith.index_cast {place} : i64 to index"));
        self.w.line(&format!("memref.store {result}, {name}[{place}] : {memory}"));
        self.w.close("}");
    }

    /// Are neighbours along the last of these loops neighbours in memory?
    fn is_along(&self, loops: &[Loop], value: Id) -> bool {
        let Some(last) = loops.last() else { return false };
        let all = reachable(self.dag, &[value]);
        let of_side =
            |atom| all.iter().any(|id| matches!(self.dag.expr(*id), crate::dag::Expr::Var(v) if *v == atom));
        let forms = self
            .loads
            .iter()
            .filter(|(_, form)| form.terms.iter().any(|t| loops.iter().any(|l| l.var == t.0)));
        let mut forms = forms.map(|(_, form)| form.terms.iter().any(|t| t.0 == last.var && t.1.is(1)));
        of_side(last.var) && forms.any(|along| along)
    }

    fn load_shared(&mut self, side: usize, at: &str) -> String {
        let (name, memory) = self.memory(side);
        let at = self.w.op(&format!("arith.index_cast {at} : i64 to index"));
        self.w.op(&format!("memref.load {name}[{at}] : {memory}"))
    }

    /// Name and type of the workgroup memory of a side.
    fn memory(&self, side: usize) -> (String, String) {
        let (name, elements, ty) = &self.shared[side];
        let memory = format!("memref<{elements}x{}, #gpu.address_space<workgroup>>", ty.mlir());
        (name.clone(), memory)
    }

    /// Writes the sums of the thread's points.
    fn leave_sums(
        &mut self,
        stage: &Stage,
        levels: &Levels,
        sides: &Sides,
        shape: Shape,
        (tile, sums): (&Tile, &[String]),
    ) {
        let Goal::Memory { index, .. } = &stage.goal else { return };
        for (n, sum) in sums.iter().enumerate() {
            let (i, j) = (n as u32 / shape.points[1], n as u32 % shape.points[1]);
            let offsets = [i * shape.threads[0], j * shape.threads[1]].map(|o| self.int(o));
            let names = self.w.names.clone();
            self.open_point(levels, sides, tile, &offsets);
            self.expressions(&[*index]);
            self.leave(stage, sum);
            self.w.names = names;
            self.w.close("}");
        }
    }

    /// Binds the loops of the point at these offsets from the thread's first, where there is one.
    fn open_point(&mut self, levels: &Levels, sides: &Sides, tile: &Tile, offsets: &[String; 2]) {
        let [row, column] = [0, 1].map(|side| {
            let first = self.index2("addi", &tile.starts[side], &tile.thread[side]);
            self.index2("addi", &first, &offsets[side])
        });
        let inside = self.both_below((&row, &tile.totals[0]), (&column, &tile.totals[1]));
        self.w.open(&format!("scf.if {inside} {{"));
        for (position, loops) in [(row, &sides.rows), (column, &sides.columns)] {
            let at = self.apart(&position, loops);
            self.bind(levels, loops, &at);
        }
    }

    /// The other stages of the nest at every point of the thread, which has just written what they read.
    fn follow(&mut self, nest: &Nest, sides: &Sides, shape: Shape, tile: &Tile) {
        let (zero, mut offsets) = (self.zero.clone(), Vec::new());
        for side in 0..2 {
            let (end, step) = (self.int(shape.extent(side)), self.int(shape.threads[side]));
            offsets.push(self.open(&zero, &end, &step));
        }
        let offsets = [offsets[0].clone(), offsets[1].clone()];
        let first = &nest.stages[0];
        for stage in &nest.stages[1..] {
            let names = self.w.names.clone();
            let levels = levels(self.dag, stage, 0);
            // The loops of this stage that correspond to those of the sum.
            let own = |loops: &[Loop]| -> Vec<Loop> {
                let number = |l: &Loop| first.loops.iter().position(|f| f.var == l.var);
                loops.iter().filter_map(|l| stage.loops.get(number(l)?).cloned()).collect()
            };
            let own = Sides {
                rows: own(&sides.rows),
                columns: own(&sides.columns),
                batch: own(&sides.batch),
                ..sides.clone()
            };
            self.bind(&levels, &own.batch, &tile.batch);
            self.open_point(&levels, &own, tile, &offsets);
            self.point(stage, &levels);
            self.w.names = names;
            self.w.close("}");
        }
        self.w.close("}");
        self.w.close("}");
    }

    /// Computes expressions whose variables are bound.
    fn expressions(&mut self, roots: &[Id]) {
        for id in reachable(self.dag, roots) {
            self.w.expression(self.dag, id);
        }
    }

    fn both_below(&mut self, a: (&str, &str), b: (&str, &str)) -> String {
        let [a, b] = [a, b].map(|(x, limit)| self.w.op(&format!("arith.cmpi ult, {x}, {limit} : i64")));
        self.w.op(&format!("arith.andi {a}, {b} : i1"))
    }

    fn int(&mut self, value: u32) -> String {
        self.w.int("i64", i64::from(value))
    }

    fn index2(&mut self, op: &str, a: &str, b: &str) -> String {
        self.w.op(&format!("arith.{op} {a}, {b} : i64"))
    }
}

/// Names of the results of a loop.
fn results(name: &str, n: usize) -> Vec<String> {
    if n == 1 { vec![name.to_owned()] } else { (0..n).map(|i| format!("{name}#{i}")).collect() }
}

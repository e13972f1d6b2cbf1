//! Programs of several entry functions: the graphs of several files in one module.
//!
//! | what | how the files share it |
//! |---|---|
//! | weights | by content: one weight of the module for equal bytes; without values, by name and type |
//! | states | by name: a state is the same in every entry that has an argument of its name |
//! | symbols | by name, where all files say the same of it; otherwise a symbol gets the label of its file |
//! | functions | none; private functions that are equal are shared later, by the pass `outline` |
//! | metadata | what all files say alike; the rest gets the label of its file |

use djinn_diag::{Context, Result, input};
use djinn_ir::{
    ArgumentKind, Attr, ContentHash, Dim, Function, Graph, Module, Op, OpKind, Symbol, TensorType, ValueId,
    Weight, verify, walk,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Puts the functions of several modules into one. The text beside a module is its label, such as `prefill`: a single
/// entry function whose name another module has as well gets the label as its name.
///
/// # Errors
/// `merge.none` for no modules, `merge.label` for labels that are empty or come twice, `merge.state` where entry
/// functions contradict each other about a state; whatever the verifier finds.
pub fn merge_programs(programs: Vec<(Module, String)>, name: &str) -> Result<Module> {
    if programs.is_empty() {
        return Err(input("merge.none", "there is nothing to put together").help("give at least one model"));
    }
    let mut labels = BTreeSet::new();
    for (_, label) in &programs {
        if label.is_empty() || !labels.insert(label.as_str()) {
            let message = format!("the label '{label}' is empty or stands for two models");
            return Err(input("merge.label", message).help("give every model a name of its own"));
        }
    }
    let names: Vec<BTreeMap<Arc<str>, Arc<str>>> = function_names(&programs);
    let facts = shared_metadata(&programs);
    let mut merged = Merged::default();
    for ((module, label), names) in programs.into_iter().zip(names) {
        merged.add(module, &label, &names, &facts).at(|| label.clone())?;
    }
    let mut module = merged.module;
    if !name.is_empty() {
        module.metadata.insert(Arc::from("program"), Arc::from(name));
    }
    check_states(&module)?;
    verify::verify(&module)?;
    Ok(module)
}

/// Labels for the models of these files: the names of the files, or of their folders where files are called alike,
/// with numbers where that is not enough.
pub fn program_labels<P: AsRef<Path>>(files: &[P]) -> Vec<String> {
    let stem = |p: &Path| -> String {
        let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('.').next().unwrap_or_default().to_owned()
    };
    let stems: BTreeSet<String> = files.iter().map(|f| stem(f.as_ref())).collect();
    let alike = stems.len() < files.len();
    let mut taken = BTreeSet::new();
    let label = |file: &P| {
        let path = file.as_ref();
        let folder = path.parent().and_then(Path::file_name).map(|f| f.to_string_lossy().into_owned());
        let wanted = folder.filter(|f| alike && !f.is_empty()).unwrap_or_else(|| stem(path));
        let wanted = if wanted.is_empty() { "model".to_owned() } else { wanted };
        let label = fresh(&wanted, |l| taken.contains(l));
        taken.insert(label.clone());
        label
    };
    files.iter().map(label).collect()
}

/// Lets weights of equal content be one weight, the first by name; gives how many went.
pub fn share_weights(module: &mut Module) -> usize {
    let before = module.weights.len();
    let mut merged = Merged::default();
    let new_names = merged.add_weights(std::mem::take(&mut module.weights), &module.absent, "");
    module.weights = merged.module.weights;
    module.absent = merged.module.absent;
    if module.weights.len() < before {
        for f in &mut module.functions {
            rename_in(f, &Renaming { weights: &new_names, functions: &BTreeMap::new() });
        }
    }
    before - module.weights.len()
}

/// What has been put together so far.
#[derive(Debug, Default)]
struct Merged {
    module: Module,
    /// The weight of this content.
    by_content: BTreeMap<ContentHash, Arc<str>>,
    /// Every symbol that a function or the table mentions.
    symbols: BTreeSet<Symbol>,
}

impl Merged {
    fn add(
        &mut self,
        module: Module,
        label: &str,
        functions: &BTreeMap<Arc<str>, Arc<str>>,
        facts: &BTreeSet<Arc<str>>,
    ) -> Result<()> {
        let mut module = self.with_own_symbols(module, label);
        let weights = self.add_weights(std::mem::take(&mut module.weights), &module.absent, label);
        for (key, value) in module.metadata {
            let key = match renamed_key(&key, functions) {
                Some(key) => key,
                None if facts.contains(&key) => key,
                None => Arc::from(format!("{label}.{key}")),
            };
            self.module.metadata.insert(key, value);
        }
        let renaming = Renaming { weights: &weights, functions };
        for mut f in module.functions {
            rename_in(&mut f, &renaming);
            self.module.functions.push(f);
        }
        Ok(())
    }

    /// The module with other names for the symbols of which it says something else than was said before.
    fn with_own_symbols(&mut self, module: Module, label: &str) -> Module {
        let mut used = walk::symbols(&module);
        used.extend(module.symbols.0.keys().cloned());
        let clashes =
            |s: &&Symbol| self.symbols.contains(s) && self.module.symbols.info(s) != module.symbols.info(s);
        let mut renamed: BTreeMap<Symbol, Symbol> = BTreeMap::new();
        for symbol in used.iter().filter(clashes) {
            let taken = |n: &str| {
                let new = Symbol::new(n);
                self.symbols.contains(&new) || used.contains(&new) || renamed.values().any(|s| *s == new)
            };
            let new = fresh(&format!("{}.{}", symbol.name(), symbol_part(label)), taken);
            renamed.insert(symbol.clone(), Symbol::new(&new));
        }
        let new_name = |s: &Symbol| renamed.get(s).unwrap_or(s).clone();
        for symbol in &used {
            self.symbols.insert(new_name(symbol));
        }
        for (symbol, info) in &module.symbols.0 {
            self.module.symbols.0.insert(new_name(symbol), info.clone());
        }
        if renamed.is_empty() {
            return module;
        }
        walk::substitute_module(&module, &|s| renamed.get(s).map(|new| Dim::symbol(new.name())))
    }

    /// Adds weights; gives the names that they have from now on.
    fn add_weights(
        &mut self,
        weights: BTreeMap<Arc<str>, Weight>,
        absent: &BTreeMap<Arc<str>, ContentHash>,
        label: &str,
    ) -> BTreeMap<Arc<str>, Arc<str>> {
        let all: BTreeSet<Arc<str>> = weights.keys().cloned().collect();
        let mut new_names = BTreeMap::new();
        for (name, weight) in weights {
            let hash = weight.data.as_ref().map(|(hash, _)| *hash).or_else(|| absent.get(&name).copied());
            let new = match hash {
                Some(hash) => self.by_content.get(&hash).cloned(),
                None => self.undetermined(&name, &weight.ty).then(|| Arc::clone(&name)),
            };
            if let Some(old) = &new {
                self.give_bytes(old, &weight);
            }
            let new = new.unwrap_or_else(|| {
                let new = if self.module.weights.contains_key(&name) {
                    let taken = |n: &str| self.module.weights.contains_key(n) || all.contains(n);
                    Arc::from(fresh(&format!("{label}.{name}"), taken))
                } else {
                    Arc::clone(&name)
                };
                self.by_content.extend(hash.map(|hash| (hash, Arc::clone(&new))));
                if let (Some(hash), None) = (hash, &weight.data) {
                    self.module.absent.insert(Arc::clone(&new), hash);
                }
                self.module.weights.insert(Arc::clone(&new), weight);
                new
            });
            new_names.insert(name, new);
        }
        new_names
    }

    /// Is there a weight of this name and type of whose content nothing is known either?
    fn undetermined(&self, name: &str, ty: &TensorType) -> bool {
        let known = self.module.weights.get(name);
        known.is_some_and(|w| w.ty == *ty) && self.module.weight_hash(name).is_none()
    }

    /// Lets a weight of which only the hash was known have the bytes of an equal one.
    fn give_bytes(&mut self, name: &Arc<str>, weight: &Weight) {
        if let Some(held) = self.module.weights.get_mut(name)
            && held.data.is_none()
            && weight.data.is_some()
        {
            held.data.clone_from(&weight.data);
            self.module.absent.remove(name);
        }
    }
}

/// The names that the functions of each module get.
fn function_names(programs: &[(Module, String)]) -> Vec<BTreeMap<Arc<str>, Arc<str>>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for f in programs.iter().flat_map(|(m, _)| &m.functions) {
        *counts.entry(&f.name).or_default() += 1;
    }
    let mut taken: BTreeSet<Arc<str>> =
        counts.iter().filter(|(_, n)| **n == 1).map(|(name, _)| Arc::from(*name)).collect();
    let names = |(module, label): &(Module, String)| {
        let single = module.entries().count() == 1;
        let mut names = BTreeMap::new();
        for f in &module.functions {
            let new = if counts[&*f.name] == 1 {
                Arc::clone(&f.name)
            } else {
                let wanted =
                    if single && !f.is_private() { label.clone() } else { format!("{label}.{}", f.name) };
                Arc::from(fresh(&wanted, |n| taken.contains(n)))
            };
            taken.insert(Arc::clone(&new));
            names.insert(Arc::clone(&f.name), new);
        }
        names
    };
    programs.iter().map(names).collect()
}

/// Keys of metadata of which all modules that have them say the same.
fn shared_metadata(programs: &[(Module, String)]) -> BTreeSet<Arc<str>> {
    let mut said: BTreeMap<&Arc<str>, BTreeSet<&str>> = BTreeMap::new();
    for (key, value) in programs.iter().flat_map(|(m, _)| &m.metadata) {
        said.entry(key).or_default().insert(value);
    }
    said.into_iter().filter(|(_, values)| values.len() == 1).map(|(key, _)| Arc::clone(key)).collect()
}

/// The key of a fact about a function (`phase.main`, `cache.main.arguments`) with the function's new name.
fn renamed_key(key: &str, functions: &BTreeMap<Arc<str>, Arc<str>>) -> Option<Arc<str>> {
    let (fact, rest) = key.split_once('.')?;
    let about = |old: &Arc<str>| {
        let tail = rest.strip_prefix(&**old)?;
        (tail.is_empty() || tail.starts_with('.')).then_some(tail)
    };
    let found = functions.iter().filter_map(|(old, new)| Some((old.len(), new, about(old)?)));
    let (_, new, tail) = found.max_by_key(|(length, ..)| *length)?;
    Some(Arc::from(format!("{fact}.{new}{tail}")))
}

/// New names of weights and functions.
struct Renaming<'a> {
    weights: &'a BTreeMap<Arc<str>, Arc<str>>,
    functions: &'a BTreeMap<Arc<str>, Arc<str>>,
}

fn rename_in(f: &mut Function, renaming: &Renaming<'_>) {
    if let Some(new) = renaming.functions.get(&f.name) {
        f.name = Arc::clone(new);
    }
    for (_, kind) in &mut f.arguments {
        if let ArgumentKind::State { initial: Some(weight) } = kind
            && let Some(new) = renaming.weights.get(weight)
        {
            *weight = Arc::clone(new);
        }
    }
    f.graph = renamed_graph(&f.graph, renaming);
}

/// The graph, operation by operation, with other names in it. Values and operations are numbered anew.
fn renamed_graph(graph: &Graph, renaming: &Renaming<'_>) -> Graph {
    let mut out = Graph::new();
    let mut values: Vec<ValueId> = vec![ValueId(u32::MAX); graph.value_capacity()];
    for v in &graph.arguments {
        values[v.0 as usize] = out.add_argument(graph.ty(*v).clone());
    }
    for (_, op) in graph.ops() {
        let operands = op.operands.iter().map(|v| values[v.0 as usize]).collect();
        let regions = op.regions.iter().map(|r| renamed_graph(r, renaming)).collect();
        let types = op.results.iter().map(|v| graph.ty(*v).clone()).collect();
        let id =
            out.push(op.kind, operands, renamed_attrs(op, renaming), regions, types, op.location.clone());
        for (name, value) in &op.annotations {
            out.annotate(id, name, value.clone());
        }
        for (old, new) in op.results.iter().zip(&out.op(id).results) {
            values[old.0 as usize] = *new;
        }
    }
    out.results = graph.results.iter().map(|v| values[v.0 as usize]).collect();
    out
}

fn renamed_attrs(op: &Op, renaming: &Renaming<'_>) -> djinn_ir::Attrs {
    let (key, names) = match op.kind {
        OpKind::Weight => ("name", renaming.weights),
        OpKind::Call => ("callee", renaming.functions),
        _ => return op.attrs.clone(),
    };
    match names.get(op.attrs.str(key)) {
        Some(new) => op.attrs.clone().with(key, Attr::Str(Arc::clone(new))),
        None => op.attrs.clone(),
    }
}

/// A state is the same one in all entries: it has one type and one first value.
fn check_states(module: &Module) -> Result<()> {
    let mut known: BTreeMap<&str, (&str, &TensorType, &Option<Arc<str>>)> = BTreeMap::new();
    for f in module.entries() {
        for ((name, kind), v) in f.arguments.iter().zip(&f.graph.arguments) {
            let ArgumentKind::State { initial } = kind else { continue };
            let ty = f.graph.ty(*v);
            let (other, other_ty, other_initial) = *known.entry(name).or_insert((&f.name, ty, initial));
            let difference = if ty != other_ty {
                format!("is {other_ty} in function '{other}', but {ty} in '{}'", f.name)
            } else if initial != other_initial {
                format!("begins with different values in functions '{other}' and '{}'", f.name)
            } else {
                continue;
            };
            let help =
                "export both with the same sizes and the same buffers, or give the states different names";
            return Err(input("merge.state", format!("the state '{name}' {difference}")).help(help));
        }
    }
    Ok(())
}

/// The wanted name, with a number behind it if it is taken.
fn fresh(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut name = wanted.to_owned();
    let mut number = 2u64;
    while taken(&name) {
        name = format!("{wanted}.{number}");
        number += 1;
    }
    name
}

/// What of a label can stand in the name of a symbol.
fn symbol_part(label: &str) -> String {
    label.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_ir::{Attrs, DType, ResultKind, TensorData, Visibility, weight_attrs};

    /// A function `main(x, cache) = (x · w + cache)` of one weight.
    fn sample(weight: (&str, Option<f64>), rows: &str, state: i64) -> Module {
        let data = |v: f64| TensorData::splat(DType::F32, &[4], v).expect("fits");
        let weight = (
            weight.0,
            match weight.1 {
                Some(v) => Weight::with_data(data(v)),
                None => Weight { ty: data(0.0).ty(), data: None },
            },
        );
        let mut g = Graph::new();
        let x = g.add_argument(TensorType::new(DType::F32, [rows.parse().expect("a size"), Dim::from(4)]));
        let cache = g.add_argument(TensorType::of(DType::F32, &[state, 4]));
        let w = g.build1(OpKind::Weight, &[], weight_attrs(weight.0, &weight.1)).expect("weight");
        let y = g.build1(OpKind::Mul, &[x, w], Attrs::new()).expect("mul");
        let new = g.build1(OpKind::Mul, &[cache, w], Attrs::new()).expect("mul");
        g.results = vec![y, new];
        let f = Function {
            name: "main".into(),
            visibility: Visibility::Entry,
            graph: g,
            arguments: vec![
                ("x".into(), ArgumentKind::Input),
                ("cache".into(), ArgumentKind::State { initial: None }),
            ],
            results: vec![("y".into(), ResultKind::Output), ("new".into(), ResultKind::Update(1))],
        };
        let mut module = Module { functions: vec![f], ..Module::default() };
        module.weights.insert(weight.0.into(), weight.1);
        module.metadata.insert("phase.main".into(), "forward".into());
        module
    }

    fn merge(a: Module, b: Module) -> Result<Module> {
        merge_programs(vec![(a, "one".into()), (b, "two".into())], "both")
    }

    fn weights(module: &Module) -> Vec<&str> {
        module.weights.keys().map(|n| &**n).collect()
    }

    #[test]
    fn weights_are_shared_by_content_and_kept_apart_by_it() {
        let merged = merge(sample(("w", Some(2.0)), "s", 1), sample(("v", Some(2.0)), "s", 1)).expect("fits");
        assert_eq!(weights(&merged), ["w"]);
        assert_eq!(merged.functions.iter().map(|f| &*f.name).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(&*merged.metadata["phase.two"], "forward");
        let merged = merge(sample(("w", Some(2.0)), "s", 1), sample(("w", Some(3.0)), "s", 1)).expect("fits");
        assert_eq!(weights(&merged), ["two.w", "w"]);
        let merged = merge(sample(("w", None), "s", 1), sample(("w", None), "s", 1)).expect("fits");
        assert_eq!(weights(&merged), ["w"]);
        let merged = merge(sample(("w", None), "s", 1), sample(("w", Some(3.0)), "s", 1)).expect("fits");
        assert_eq!(weights(&merged), ["two.w", "w"]);
    }

    #[test]
    fn symbols_are_shared_where_all_say_the_same_of_them() {
        let bounded = |max| {
            let mut m = sample(("w", None), "2*s", 1);
            let info = djinn_ir::SymbolInfo { max: Some(max), ..Default::default() };
            m.symbols.0.insert(Symbol::new("s"), info);
            m
        };
        let names = |m: &Module| walk::symbols(m).iter().map(|s| s.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&merge(bounded(7), bounded(7)).expect("fits")), ["s"]);
        let apart = merge(bounded(7), bounded(8)).expect("fits");
        assert_eq!(names(&apart), ["s", "s.two"]);
        assert_eq!(apart.symbols.info(&Symbol::new("s.two")).max, Some(8));
        assert_eq!(apart.functions[1].graph.ty(ValueId(0)).shape[0].to_string(), "2*s.two");
    }

    #[test]
    fn contradicting_states_and_labels_are_refused() {
        let e = merge(sample(("w", None), "s", 1), sample(("w", None), "s", 2)).expect_err("two sizes");
        assert_eq!(e.code, "merge.state");
        assert!(e.message.contains("'cache'") && e.help.is_some(), "{e}");
        let twice =
            vec![(sample(("w", None), "s", 1), "a".into()), (sample(("w", None), "s", 1), "a".into())];
        assert_eq!(merge_programs(twice, "").expect_err("twice").code, "merge.label");
        assert_eq!(merge_programs(vec![], "").expect_err("nothing").code, "merge.none");
    }

    #[test]
    fn tied_weights_become_one() {
        let mut m = sample(("w", Some(2.0)), "s", 1);
        let tied = m.weights["w"].clone();
        m.weights.insert("a".into(), tied);
        assert_eq!((share_weights(&mut m), weights(&m)), (1, vec!["a"]));
        assert!(verify::verify(&m).is_ok());
        assert_eq!(share_weights(&mut m), 0);
    }

    #[test]
    fn labels_come_from_files_or_folders() {
        assert_eq!(program_labels(&["a/prefill.pt2", "a/decode.onnx.gz"]), ["prefill", "decode"]);
        assert_eq!(program_labels(&["a/model.pt2", "b/model.pt2"]), ["a", "b"]);
        assert_eq!(program_labels(&["model.pt2", "model.pt2"]), ["model", "model.2"]);
        assert!(program_labels::<&str>(&[]).is_empty());
    }
}

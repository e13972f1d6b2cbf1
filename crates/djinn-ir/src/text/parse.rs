//! The parser: recursive descent over [`Cursor`].

use super::counted::{TERMINATOR, counted_name, from_counted_name};
use super::cursor::{Cursor, Token};
use super::literal::{Dict, Entry, Literal, dict, self_describing, table_attr, tensor_type};
use crate::attr::{Attr, Attrs};
use crate::data::ContentHash;
use crate::dim::{Symbol, SymbolInfo};
use crate::graph::{
    ArgumentKind, Function, Graph, Location, Module, ResultKind, ValueId, Visibility, Weight,
};
use crate::ops::{OP_TABLE, OpDef, OpKind};
use crate::suggest::did_you_mean;
use crate::types::TensorType;
use djinn_diag::Result;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads a module. Weights have their types and hashes, but no bytes unless they stand in the text.
///
/// The module is not verified: that is the caller's next step ([`crate::verify`]).
///
/// # Errors
/// `text.parse`, with line and column and the line itself.
pub fn parse_module(text: &str) -> Result<Module> {
    let mut c = Cursor::new(text)?;
    let mut module = Module::default();
    let place = c.place();
    if c.expect_text("\"builtin.module\"")? != "builtin.module" {
        return Err(c.error_at(place, "expected \"builtin.module\""));
    }
    c.expect('(')?;
    c.expect(')')?;
    c.expect('(')?;
    c.expect('{')?;
    if matches!(c.peek(), Token::Block(_)) {
        c.advance()?;
        c.expect(':')?;
    }
    while !c.eat('}')? {
        c.nested(|c| definition(c, &mut module))?;
    }
    c.expect(')')?;
    if c.eat('{')? {
        let attributes = dict(&mut c)?;
        module_attributes(&c, attributes, &mut module)?;
    }
    no_types(&mut c)?;
    location(&mut c)?;
    if *c.peek() != Token::End {
        return Err(c.unexpected("the end of the text"));
    }
    Ok(module)
}

/// Reads a tensor type: `tensor<?x8xf32, ["s0"]>`.
///
/// # Errors
/// `text.parse`, with the column.
pub fn parse_type(text: &str) -> Result<TensorType> {
    let mut c = Cursor::new(text)?;
    let ty = tensor_type(&mut c)?;
    if *c.peek() != Token::End { Err(c.unexpected("the end of the type")) } else { Ok(ty) }
}

/// `: () -> ()`.
fn no_types(c: &mut Cursor<'_>) -> Result<()> {
    for token in [':', '(', ')'] {
        c.expect(token)?;
    }
    c.expect_token(&Token::Arrow)?;
    c.expect('(')?;
    c.expect(')')
}

fn module_attributes(c: &Cursor<'_>, attributes: Dict, module: &mut Module) -> Result<()> {
    for Entry { name, value, place } in attributes.0 {
        match (name.as_str(), value) {
            ("djinn.metadata", Literal::Dict(entries)) => {
                for e in entries.0 {
                    let Literal::Text(text) = e.value else {
                        return Err(c.error_at(e.place, "metadata is text"));
                    };
                    module.metadata.insert(Arc::from(e.name), Arc::from(text));
                }
            }
            ("djinn.symbols", Literal::Dict(entries)) => {
                for e in entries.0 {
                    let Literal::Dict(facts) = e.value else {
                        return Err(c.error_at(e.place, "expected {divisor = …, max = …, min = …}"));
                    };
                    module.symbols.0.insert(Symbol::new(&e.name), symbol_info(c, facts)?);
                }
            }
            _ => {
                let message = format!("'{name}' is no attribute of a module, or has the wrong form");
                return Err(c.error_at(place, message));
            }
        }
    }
    Ok(())
}

fn symbol_info(c: &Cursor<'_>, facts: Dict) -> Result<SymbolInfo> {
    let mut info = SymbolInfo::default();
    for Entry { name, value, place } in facts.0 {
        match (name.as_str(), value) {
            ("divisor", Literal::Int(v)) => info.divisor = v,
            ("max", Literal::Int(v)) => info.max = Some(v),
            ("min", Literal::Int(v)) => info.min = v,
            _ => return Err(c.error_at(place, "expected divisor, max or min with an integer")),
        }
    }
    Ok(info)
}

/// A weight declaration or a function.
fn definition(c: &mut Cursor<'_>, module: &mut Module) -> Result<()> {
    let place = c.place();
    match c.expect_text("\"djinn.weight_decl\", \"djinn.func\" or '}'")?.as_str() {
        "djinn.weight_decl" => {
            c.expect('(')?;
            c.expect(')')?;
            weight(c, module, place)
        }
        "djinn.func" => {
            c.expect('(')?;
            c.expect(')')?;
            c.expect('(')?;
            let graph = region(c)?;
            c.expect(')')?;
            function(c, graph, module, place)
        }
        other => Err(c.error_at(place, format!("a module does not hold '{other}'"))),
    }
}

/// The entry of this name as text.
fn text_entry(c: &Cursor<'_>, entries: &mut Dict, name: &str, place: usize) -> Result<String> {
    match entries.take(name) {
        Some(Literal::Text(text)) => Ok(text),
        _ => Err(c.error_at(place, format!("needs '{name}' as a string"))),
    }
}

fn nothing_else(c: &Cursor<'_>, entries: &Dict) -> Result<()> {
    match entries.0.first() {
        Some(e) => Err(c.error_at(e.place, format!("'{}' is not known here", e.name))),
        None => Ok(()),
    }
}

fn weight(c: &mut Cursor<'_>, module: &mut Module, place: usize) -> Result<()> {
    attributes_open(c)?;
    let mut entries = dict(c)?;
    no_types(c)?;
    location(c)?;
    let name: Arc<str> = Arc::from(text_entry(c, &mut entries, "sym_name", place)?);
    let hash = match text_entry(c, &mut entries, "hash", place)? {
        hash if hash.is_empty() => None,
        hash => match ContentHash::from_hex(&hash) {
            Some(hash) => Some(hash),
            None => return Err(c.error_at(place, "'hash' is empty or has 32 hexadecimal digits")),
        },
    };
    let Some(Literal::Type(ty)) = entries.take("type") else {
        return Err(c.error_at(place, "needs 'type', a tensor type"));
    };
    let weight = match entries.take("value") {
        None => Weight { ty, data: None },
        Some(Literal::Tensor(data)) if data.ty() == ty => Weight::with_data(data),
        Some(_) => return Err(c.error_at(place, "'value' must be a constant of the weight's type")),
    };
    nothing_else(c, &entries)?;
    match (&weight.data, hash) {
        (Some((held, _)), Some(hash)) if *held != hash => {
            return Err(c.error_at(place, format!("'value' has the hash {held}, not {hash}")));
        }
        (None, Some(hash)) => {
            module.absent.insert(Arc::clone(&name), hash);
        }
        _ => {}
    }
    match module.weights.insert(Arc::clone(&name), weight) {
        Some(_) => Err(c.error_at(place, format!("two weights are named '{name}'"))),
        None => Ok(()),
    }
}

fn attributes_open(c: &mut Cursor<'_>) -> Result<()> {
    c.expect('{')
}

fn function(c: &mut Cursor<'_>, graph: Graph, module: &mut Module, place: usize) -> Result<()> {
    attributes_open(c)?;
    let mut entries = dict(c)?;
    no_types(c)?;
    location(c)?;
    let name = Arc::from(text_entry(c, &mut entries, "sym_name", place)?);
    let arguments = records(c, &mut entries, "arguments", place)?
        .into_iter()
        .map(|(e, kind, name)| argument(c, e, &kind, place).map(|kind| (name, kind)))
        .collect::<Result<_>>()?;
    let results = records(c, &mut entries, "results", place)?
        .into_iter()
        .map(|(e, kind, name)| result(c, e, &kind, place).map(|kind| (name, kind)))
        .collect::<Result<_>>()?;
    let visibility = match entries.take("sym_visibility") {
        None => Visibility::Entry,
        Some(Literal::Text(word)) if word == "private" => Visibility::Private,
        Some(_) => return Err(c.error_at(place, "'sym_visibility' is \"private\" or left out")),
    };
    nothing_else(c, &entries)?;
    module.functions.push(Function { name, visibility, graph, arguments, results });
    Ok(())
}

/// A list of dictionaries with `kind` and `name`, which are taken out.
fn records(
    c: &Cursor<'_>,
    entries: &mut Dict,
    name: &str,
    place: usize,
) -> Result<Vec<(Dict, String, Arc<str>)>> {
    let Some(Literal::List(items)) = entries.take(name) else {
        return Err(c.error_at(place, format!("needs '{name}', a list")));
    };
    let read = |item| {
        let Literal::Dict(mut entries) = item else {
            return Err(c.error_at(place, format!("'{name}' is a list of dictionaries")));
        };
        let kind = text_entry(c, &mut entries, "kind", place)?;
        let name = text_entry(c, &mut entries, "name", place)?;
        Ok((entries, kind, Arc::from(name)))
    };
    items.into_iter().map(read).collect()
}

fn argument(c: &Cursor<'_>, mut entries: Dict, kind: &str, place: usize) -> Result<ArgumentKind> {
    let kind = match (kind, entries.take("initial")) {
        ("input", None) => ArgumentKind::Input,
        ("weight", None) => ArgumentKind::Weight,
        ("state", None) => ArgumentKind::State { initial: None },
        ("state", Some(Literal::Text(initial))) => ArgumentKind::State { initial: Some(Arc::from(initial)) },
        _ => {
            return Err(c.error_at(
                place,
                "an argument is of kind \"input\", \"weight\", or \"state\" with 'initial'",
            ));
        }
    };
    nothing_else(c, &entries)?;
    Ok(kind)
}

fn result(c: &Cursor<'_>, mut entries: Dict, kind: &str, place: usize) -> Result<ResultKind> {
    let number = match entries.take("argument") {
        None => None,
        Some(Literal::Int(i)) => u32::try_from(i).ok(),
        Some(_) => return Err(c.error_at(place, "'argument' is the number of an argument")),
    };
    let kind = match (kind, number) {
        ("output", None) => ResultKind::Output,
        ("update", Some(i)) => ResultKind::Update(i),
        _ => return Err(c.error_at(place, "a result is of kind \"output\", or \"update\" with 'argument'")),
    };
    nothing_else(c, &entries)?;
    Ok(kind)
}

/// Values of the body that is read, by name.
type Names<'a> = BTreeMap<&'a str, Vec<ValueId>>;

/// Reads `{ ^bb0(…): operations "djinn.return"(…) … }`.
fn region(c: &mut Cursor<'_>) -> Result<Graph> {
    c.expect('{')?;
    let mut graph = Graph::new();
    let mut names = Names::new();
    if matches!(c.peek(), Token::Block(_)) {
        c.advance()?;
        if c.eat('(')? {
            c.list(')', |c| {
                let (name, place) = value_name(c)?;
                c.expect(':')?;
                let ty = tensor_type(c)?;
                let v = graph.add_argument(ty);
                location(c)?;
                define(c, &mut names, name, vec![v], place)
            })?;
        }
        c.expect(':')?;
    }
    loop {
        let place = c.place();
        let mut results = Vec::new();
        if matches!(c.peek(), Token::Value(_)) {
            results = result_names(c)?;
        }
        let name = c.expect_text("an operation")?;
        if (name == "djinn.return" || name == TERMINATOR) && results.is_empty() {
            let (values, _) = operands(c, &graph, &names)?;
            graph.results = values;
            break;
        }
        c.nested(|c| operation(c, &mut graph, &mut names, &name, results, place))?;
    }
    c.expect('}')?;
    Ok(graph)
}

fn define<'a>(
    c: &Cursor<'_>,
    names: &mut Names<'a>,
    name: &'a str,
    values: Vec<ValueId>,
    place: usize,
) -> Result<()> {
    match names.insert(name, values) {
        Some(_) => Err(c.error_at(place, format!("%{name} is defined twice"))),
        None => Ok(()),
    }
}

fn value_name<'a>(c: &mut Cursor<'a>) -> Result<(&'a str, usize)> {
    let place = c.place();
    match c.peek() {
        Token::Value(name) if !name.is_empty() => {
            let name = *name;
            c.advance()?;
            Ok((name, place))
        }
        _ => Err(c.unexpected("a value such as %0")),
    }
}

/// Result values that one name stands for, at most (`%0:2`).
const MAX_RESULTS: usize = 4096;

/// Reads `%0, %1:2 =` and gives names with how many values each stands for, and places.
fn result_names<'a>(c: &mut Cursor<'a>) -> Result<Vec<(&'a str, usize, usize)>> {
    let mut names = Vec::new();
    loop {
        let (name, place) = value_name(c)?;
        let mut count = 1;
        if c.eat(':')? {
            let at = c.place();
            count = match c.advance()? {
                Token::Number(n) => n.parse().ok().filter(|n| (1..=MAX_RESULTS).contains(n)),
                _ => None,
            }
            .ok_or_else(|| c.error_at(at, "expected a number of results"))?;
        }
        names.push((name, count, place));
        if c.eat('=')? {
            return Ok(names);
        }
        c.expect(',')?;
    }
}

/// The place of an operand and the value it names.
fn operand(c: &mut Cursor<'_>, names: &Names<'_>) -> Result<(usize, ValueId)> {
    let (name, place) = value_name(c)?;
    let mut index = 0;
    if c.eat('#')? {
        index = match c.advance()? {
            Token::Number(n) => n.parse().unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
    }
    match names.get(name).map(|values| values.get(index).copied()) {
        Some(Some(v)) => Ok((place, v)),
        Some(None) => Err(c.error_at(place, format!("%{name} has no such result"))),
        None => Err(c.error_at(place, format!("%{name} is not defined here"))),
    }
}

/// Reads `(%0, %1) … : (types) -> types` without regions and attributes: the form of `djinn.return`.
fn operands(c: &mut Cursor<'_>, graph: &Graph, names: &Names<'_>) -> Result<(Vec<ValueId>, Vec<TensorType>)> {
    c.expect('(')?;
    let values = c.list(')', |c| operand(c, names))?;
    let types = function_type(c, graph, &values)?;
    location(c)?;
    Ok((values.into_iter().map(|(_, v)| v).collect(), types))
}

/// Reads `: (types) -> types`, compares the first with the operands and gives the second.
fn function_type(c: &mut Cursor<'_>, graph: &Graph, values: &[(usize, ValueId)]) -> Result<Vec<TensorType>> {
    c.expect(':')?;
    let place = c.place();
    c.expect('(')?;
    let declared = c.list(')', tensor_type)?;
    if declared.len() != values.len() {
        let message = format!("{} operands, but {} types", values.len(), declared.len());
        return Err(c.error_at(place, message));
    }
    for ((place, v), declared) in values.iter().zip(&declared) {
        let actual = graph.ty(*v);
        if actual != declared {
            return Err(c.error_at(*place, format!("is of type {actual}, not {declared}")));
        }
    }
    c.expect_token(&Token::Arrow)?;
    if c.eat('(')? { c.list(')', tensor_type) } else { Ok(vec![tensor_type(c)?]) }
}

fn operation<'a>(
    c: &mut Cursor<'a>,
    graph: &mut Graph,
    names: &mut Names<'a>,
    name: &str,
    results: Vec<(&'a str, usize, usize)>,
    place: usize,
) -> Result<()> {
    let def = op_def(c, name, place)?;
    c.expect('(')?;
    let operands = c.list(')', |c| operand(c, names))?;
    let mut entries = Dict::default();
    if c.eat('<')? {
        c.expect('{')?;
        entries = dict(c)?;
        c.expect('>')?;
    }
    let regions = if c.eat('(')? { c.list(')', region)? } else { Vec::new() };
    if c.eat('{')? {
        entries.0.append(&mut dict(c)?.0);
    }
    let (attrs, annotations) = attributes(c, def, entries)?;
    let types = function_type(c, graph, &operands)?;
    let location = location(c)?;
    let named: usize = results.iter().map(|(_, count, _)| count).sum();
    if named != types.len() && !results.is_empty() {
        return Err(c.error_at(place, format!("{named} results are named, but {} typed", types.len())));
    }
    let plain = name.strip_prefix("djinn.") == Some(def.name);
    let counted = counted_name(def, operands.len(), types.len());
    if !plain && counted.as_deref() != name.strip_prefix("djinn.") {
        let what = format!("'{name}' has {} operands and {} results", operands.len(), types.len());
        return Err(c.error_at(place, what));
    }
    let operands = operands.into_iter().map(|(_, v)| v).collect();
    let id = graph.push(def.kind, operands, attrs, regions, types, location);
    for (name, value) in annotations {
        graph.annotate(id, &name, value);
    }
    let mut values = graph.op(id).results.clone().into_iter();
    for (name, count, place) in results {
        define(c, names, name, values.by_ref().take(count).collect(), place)?;
    }
    Ok(())
}

fn op_def(c: &Cursor<'_>, name: &str, place: usize) -> Result<&'static OpDef> {
    let short = name.strip_prefix("djinn.");
    if let Some(kind) = short.and_then(|short| OpKind::from_name(short).or_else(|| from_counted_name(short)))
    {
        return Ok(kind.def());
    }
    let error = c.error_at(place, format!("there is no operation '{name}'"));
    let near = did_you_mean(short.unwrap_or(name), OP_TABLE.iter().map(|d| d.name));
    Err(match near {
        Some(help) => error.help(help),
        None => error.help("operations are those of the op table, with the prefix 'djinn.'"),
    })
}

type Annotations = Vec<(String, Attr)>;

fn attributes(c: &Cursor<'_>, def: &'static OpDef, entries: Dict) -> Result<(Attrs, Annotations)> {
    let (mut attrs, mut annotations) = (Attrs::new(), Vec::new());
    for Entry { name, value, place } in entries.0 {
        if let Some(short) = name.strip_prefix("djinn.") {
            annotations.push((short.to_string(), self_describing(c, value, place)?));
            continue;
        }
        let Some(a) = def.attrs.iter().find(|a| a.name == name) else {
            let known: Vec<&str> = def.attrs.iter().map(|a| a.name).collect();
            let help = format!("'{}' has: {}", def.name, known.join(", "));
            return Err(c.error_at(place, format!("'{}' has no attribute '{name}'", def.name)).help(help));
        };
        if attrs.get(a.name).is_some() {
            return Err(c.error_at(place, format!("'{name}' is given twice")));
        }
        attrs.set(a.name, table_attr(c, a.kind, value, place)?);
    }
    Ok((attrs, annotations))
}

/// Reads `loc("scope"("file":1:1))`, `loc("scope")`, `loc("file":1:1)`, `loc(unknown)` or nothing.
fn location(c: &mut Cursor<'_>) -> Result<Location> {
    let mut location = Location::default();
    if *c.peek() != Token::Word("loc") {
        return Ok(location);
    }
    c.advance()?;
    c.expect('(')?;
    if *c.peek() == Token::Word("unknown") {
        c.advance()?;
        c.expect(')')?;
        return Ok(location);
    }
    let name = c.expect_text("a scope or a file in quotes")?;
    if c.eat(':')? {
        location.source = Some((Arc::from(name), line_and_column(c)?));
    } else {
        location.scope = Some(Arc::from(name));
        if c.eat('(')? {
            let file = c.expect_text("a file in quotes")?;
            c.expect(':')?;
            location.source = Some((Arc::from(file), line_and_column(c)?));
            c.expect(')')?;
        }
    }
    c.expect(')')?;
    Ok(location)
}

/// Reads `12:1` and gives the line.
fn line_and_column(c: &mut Cursor<'_>) -> Result<u32> {
    let number = |c: &mut Cursor<'_>| {
        let place = c.place();
        match c.advance()? {
            Token::Number(n) => {
                n.parse::<u32>().map_err(|_| c.error_at(place, "expected a line or column number"))
            }
            _ => Err(c.error_at(place, "expected a line or column number")),
        }
    };
    let line = number(c)?;
    c.expect(':')?;
    number(c)?;
    Ok(line)
}

//! Reading profiles from TOML: the shape of the file, then the range of every figure.

use crate::profile::{Figure, LinkFigures, OpClass, Peaks, Precision, Profile, Rates};
use crate::topology::MAX_DEVICES;
use djinn_diag::{Diagnostic, Result, input};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes of a profile or topology file, at most: far above any honest one.
pub(crate) const MAX_TEXT: usize = 4 << 20;

/// Rates are from one to this many a second, and times up to this many seconds: products of honest sizes stay finite.
pub(crate) const MAX_RATE: f64 = 1e30;
pub(crate) const MAX_SECONDS: f64 = 1e9;

/// Shares of a peak are at least this.
const MIN_SHARE: f64 = 1e-9;

/// A number with its source, as in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sourced {
    value: f64,
    source: Option<String>,
    estimate: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkText {
    bandwidth: Sourced,
    latency_seconds: Sourced,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RatesText {
    #[serde(default = "one")]
    compute: f64,
    #[serde(default = "one")]
    memory: f64,
    #[serde(default)]
    overhead_seconds: f64,
    #[serde(default)]
    per_element: f64,
    #[serde(default)]
    per_flop: f64,
    #[serde(default)]
    per_byte: f64,
    source: String,
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

/// A whole number, its unit and its range, for messages.
struct Whole {
    what: &'static str,
    most: u64,
    example: &'static str,
}

impl de::Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number of {} from 1 to {}, such as {}", self.what, self.most, self.example)
    }

    /// Whether a whole number is too large is for those to say who know what it is for.
    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<u64, E> {
        Ok(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<u64, E> {
        match u64::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => Err(E::custom(format_args!("{value} is out of range: give {}", DisplayOf(&self)))),
        }
    }
}

/// What a visitor expects, as text.
struct DisplayOf<'a>(&'a Whole);

impl fmt::Display for DisplayOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        de::Visitor::expecting(self.0, f)
    }
}

/// Bytes of memory.
pub(crate) fn whole_bytes<'de, D: de::Deserializer<'de>>(d: D) -> std::result::Result<Option<u64>, D::Error> {
    d.deserialize_u64(Whole { what: "bytes", most: 1_000_000_000_000_000, example: "80_000_000_000" })
        .map(Some)
}

/// How many devices.
pub(crate) fn whole_count<'de, D: de::Deserializer<'de>>(
    d: D,
) -> std::result::Result<Option<usize>, D::Error> {
    let most = MAX_DEVICES as u64;
    let count = d.deserialize_u64(Whole { what: "devices", most, example: "8" })?;
    Ok(usize::try_from(count).ok())
}

/// A profile as in the file; also the entries `[[profile]]` of a topology.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileText {
    name: String,
    summary: String,
    memory_bytes: Sourced,
    memory_bandwidth: Sourced,
    l2_bytes: Sourced,
    l2_bandwidth: Sourced,
    launch_seconds: Sourced,
    sync_seconds: Option<Sourced>,
    multiprocessors: Sourced,
    compute_capability: Option<Sourced>,
    max_streams: Sourced,
    peak_flops: BTreeMap<String, Sourced>,
    host_link: LinkText,
    peer_link: Option<LinkText>,
    half_seconds_per_byte: Option<Sourced>,
    #[serde(default = "yes")]
    fuses: bool,
    #[serde(default = "yes")]
    roofline: bool,
    #[serde(default)]
    class: BTreeMap<String, RatesText>,
    #[serde(default)]
    op: BTreeMap<String, RatesText>,
}

/// Parses TOML of a known shape; `code` is that of the diagnostic.
pub(crate) fn toml<T: DeserializeOwned>(text: &str, code: &str, place: &str) -> Result<T> {
    if text.len() > MAX_TEXT {
        let message = format!("the file has {} bytes; at most {MAX_TEXT} are read", text.len());
        return Err(input(code, message).at(place));
    }
    toml::from_str(text).map_err(|e| {
        let line =
            e.span().map(|s| text.as_bytes()[..s.start.min(text.len())].iter().filter(|b| **b == b'\n'));
        let error = input(code, e.message().trim_end().replace('\n', " "));
        let error = match line {
            Some(breaks) => error.at(format!("line {}", breaks.count() + 1)),
            None => error,
        };
        error.at(place).shortened()
    })
}

/// Is it a name that can stand in `<name>:<n>` and in options?
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Reads a profile.
pub(crate) fn profile(text: &str, place: &str) -> Result<Profile> {
    profile_of(toml(text, "profile.format", place)?).map_err(|e| e.at(place))
}

/// The profile that the text describes.
pub(crate) fn profile_of(text: ProfileText) -> Result<Profile> {
    if !is_plain_name(&text.name) {
        return Err(format_error(format!("'{}' is no name of a profile", text.name))
            .help("use letters, digits, '-', '_' and '.'"));
    }
    let mut reader = Reader::default();
    let profile = Profile {
        memory_bytes: reader.whole("memory_bytes", text.memory_bytes)?,
        memory_bandwidth: reader.rate("memory_bandwidth", text.memory_bandwidth)?,
        l2_bytes: reader.whole("l2_bytes", text.l2_bytes)?,
        l2_bandwidth: reader.rate("l2_bandwidth", text.l2_bandwidth)?,
        launch_seconds: reader.seconds("launch_seconds", text.launch_seconds)?,
        own_sync_seconds: text
            .sync_seconds
            .map(|figure| reader.seconds("sync_seconds", figure))
            .transpose()?,
        multiprocessors: reader.count("multiprocessors", text.multiprocessors)?,
        compute_capability: text
            .compute_capability
            .map(|figure| reader.count("compute_capability", figure))
            .transpose()?,
        max_streams: reader.count("max_streams", text.max_streams)?,
        peaks: reader.peaks(text.peak_flops)?,
        host_link: reader.link("host_link", text.host_link)?,
        peer_link: text.peer_link.map(|link| reader.link("peer_link", link)).transpose()?,
        half_seconds_per_byte: match text.half_seconds_per_byte {
            Some(figure) => reader.seconds("half_seconds_per_byte", figure)?,
            None => 0.0,
        },
        fuses: text.fuses,
        classes: reader.classes(text.class)?,
        ops: reader.ops(text.op)?,
        roofline: text.roofline,
        name: text.name,
        summary: text.summary,
        sources: BTreeMap::new(),
    };
    Ok(Profile { sources: reader.sources, ..profile })
}

/// Checks figures and remembers their sources.
#[derive(Default)]
struct Reader {
    sources: BTreeMap<String, Figure>,
}

impl Reader {
    fn figure(&mut self, key: &str, figure: Sourced, fits: bool, range: &str) -> Result<f64> {
        if !fits || !figure.value.is_finite() {
            return Err(out_of_range(key, figure.value, range));
        }
        let (source, estimated) = match (figure.source, figure.estimate) {
            (Some(source), None) => (source, false),
            (None, Some(guess)) => (guess, true),
            _ => {
                return Err(format_error(format!("'{key}' needs either a source or an estimate"))
                    .help("name the datasheet or the measurement, or say what the figure was guessed from"));
            }
        };
        self.sources.insert(key.to_owned(), Figure { source, estimated });
        Ok(figure.value)
    }

    /// A rate: bytes or operations a second.
    fn rate(&mut self, key: &str, figure: Sourced) -> Result<f64> {
        let fits = (1.0..=MAX_RATE).contains(&figure.value);
        self.figure(key, figure, fits, "from 1 to 1e30")
    }

    fn seconds(&mut self, key: &str, figure: Sourced) -> Result<f64> {
        let fits = (0.0..=MAX_SECONDS).contains(&figure.value);
        self.figure(key, figure, fits, "from 0 to 1e9")
    }

    /// A number of bytes: whole, and small enough for sums over a thousand devices.
    fn whole(&mut self, key: &str, figure: Sourced) -> Result<u64> {
        let fits = figure.value >= 1.0 && figure.value <= 1e15 && figure.value.fract() == 0.0;
        Ok(self.figure(key, figure, fits, "a whole number from 1 to 1e15")? as u64)
    }

    fn count(&mut self, key: &str, figure: Sourced) -> Result<u32> {
        let fits = figure.value >= 1.0 && figure.value <= 1e5 && figure.value.fract() == 0.0;
        Ok(self.figure(key, figure, fits, "a whole number from 1 to 100000")? as u32)
    }

    fn peaks(&mut self, figures: BTreeMap<String, Sourced>) -> Result<Peaks> {
        let mut peaks = Peaks([None; 7]);
        for (name, figure) in figures {
            let precision = Precision::from_name(&name).ok_or_else(|| {
                let known = Precision::ALL.map(Precision::name).join(", ");
                format_error(format!("there is no precision '{name}'"))
                    .help(format!("precisions are: {known}"))
            })?;
            peaks.0[precision as usize] = Some(self.rate(&format!("peak_flops.{name}"), figure)?);
        }
        match peaks.own(Precision::F32) {
            Some(_) => Ok(peaks),
            None => Err(format_error("'peak_flops' has no 'f32'")
                .help("f32 stands in for every precision without a peak of its own")),
        }
    }

    fn link(&mut self, key: &str, link: LinkText) -> Result<LinkFigures> {
        Ok(LinkFigures {
            bandwidth: self.rate(&format!("{key}.bandwidth"), link.bandwidth)?,
            latency_seconds: self.seconds(&format!("{key}.latency_seconds"), link.latency_seconds)?,
        })
    }

    fn rates(&mut self, key: &str, text: RatesText) -> Result<Rates> {
        for (name, value) in [("compute", text.compute), ("memory", text.memory)] {
            if !(MIN_SHARE..=MAX_RATE).contains(&value) {
                return Err(out_of_range(&format!("{key}.{name}"), value, "from 1e-9 to 1e30"));
            }
        }
        for (name, value) in [
            ("overhead_seconds", text.overhead_seconds),
            ("per_element", text.per_element),
            ("per_flop", text.per_flop),
            ("per_byte", text.per_byte),
        ] {
            if !(0.0..=MAX_SECONDS).contains(&value) {
                return Err(out_of_range(&format!("{key}.{name}"), value, "from 0 to 1e9"));
            }
        }
        self.sources.insert(key.to_owned(), Figure { source: text.source, estimated: false });
        Ok(Rates {
            compute: text.compute,
            memory: text.memory,
            overhead_seconds: text.overhead_seconds,
            per_element: text.per_element,
            per_flop: text.per_flop,
            per_byte: text.per_byte,
        })
    }

    fn classes(&mut self, texts: BTreeMap<String, RatesText>) -> Result<[Rates; 6]> {
        let mut classes = [Rates::default(); 6];
        for (name, text) in texts {
            let class = OpClass::from_name(&name).ok_or_else(|| {
                let known = OpClass::ALL.map(OpClass::name).join(", ");
                format_error(format!("there is no class of work '{name}'"))
                    .help(format!("classes are: {known}"))
            })?;
            classes[class as usize] = self.rates(&format!("class.{name}"), text)?;
        }
        Ok(classes)
    }

    fn ops(&mut self, texts: BTreeMap<String, RatesText>) -> Result<BTreeMap<String, Rates>> {
        texts
            .into_iter()
            .map(|(name, text)| {
                let rates = self.rates(&format!("op.{name}"), text)?;
                Ok((name, rates))
            })
            .collect()
    }
}

fn format_error(message: impl Into<String>) -> Box<Diagnostic> {
    input("profile.format", message).shortened()
}

fn out_of_range(key: &str, value: f64, range: &str) -> Box<Diagnostic> {
    input("profile.figure", format!("'{key}' is {value}; it has to be {range}")).shortened()
}

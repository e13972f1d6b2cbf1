//! Profiles as JSON. What is read is held against what a profile can be: no number of a hostile file reaches a fit.

use super::{RunProfile, Section, Subject};
use crate::features::{Features, Member};
use crate::work::Work;
use djinn_diag::{Diagnostic, Result, input, internal, unsupported};
use djinn_ir::{DType, OpKind};
use serde::{Deserialize, Serialize};

/// Version of the format; a reader refuses every other.
pub const VERSION: u32 = 1;

/// Bytes of a profile, at most.
pub const MAX_BYTES: u64 = 256 << 20;

const FORMAT: &str = "djinn-run-profile";

/// The largest count of elements, bytes or operations that is believed.
const LARGEST: f64 = 1e30;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<S> {
    format: String,
    version: u32,
    sections: Vec<S>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: Option<String>,
    version: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionText<T, S> {
    subject: T,
    times: S,
}

impl RunProfile {
    /// The profile as JSON.
    ///
    /// # Errors
    /// None that a profile made by this crate meets.
    pub fn to_json(&self) -> Result<String> {
        let sections = self.sections.iter().map(|(subject, times)| SectionText { subject, times });
        let file = File { format: FORMAT.to_owned(), version: VERSION, sections: sections.collect() };
        let text = serde_json::to_string_pretty(&file);
        text.map(|t| t + "\n").map_err(|e| internal("profile.write", e.to_string()))
    }

    /// Reads a profile; `place` names the file in diagnostics. Sections of one subject become one.
    ///
    /// # Errors
    /// `profile.format` if it is no profile, `profile.version` for one of another version, `profile.value` for a figure
    /// that no run can give (negative, too large, not a number).
    pub fn from_json(text: &str, place: &str) -> Result<RunProfile> {
        read(text).map_err(|e| e.at(place).shortened())
    }
}

fn read(text: &str) -> Result<RunProfile> {
    let again = "measure again: djinn-opt run BUNDLE --profile FILE";
    let wrong = |e: serde_json::Error| input("profile.format", e.to_string()).help(again);
    if text.len() as u64 > MAX_BYTES {
        return Err(input("profile.format", format!("more than {MAX_BYTES} bytes")));
    }
    let head: Head = serde_json::from_str(text).map_err(wrong)?;
    if head.format.as_deref() != Some(FORMAT) {
        return Err(input("profile.format", format!("its format is not '{FORMAT}'")).help(again));
    }
    if head.version != Some(u64::from(VERSION)) {
        let version = head.version.map_or("none".to_owned(), |v| v.to_string());
        let message = format!("version {version} of profiles is not known; version {VERSION} is");
        return Err(unsupported("profile.version", message).help(again));
    }
    let file: File<SectionText<Subject, Section>> = serde_json::from_str(text).map_err(wrong)?;
    let mut profile = RunProfile::default();
    for SectionText { subject, times } in file.sections {
        check(&times).map_err(|e| e.at(format!("entry '{}'", subject.entry)))?;
        profile.merge(&RunProfile { sections: [(subject, times)].into() });
    }
    Ok(profile)
}

fn check(section: &Section) -> Result<()> {
    seconds("the step", section.predicted)?;
    for (key, kernel) in &section.kernels {
        seconds(&kernel.name, kernel.predicted)?;
        let features = &kernel.features;
        let works = features.members.iter().map(|m| &m.work);
        let figures = works.flat_map(|w| {
            [w.flops, w.bytes_read, w.bytes_written, w.elements, w.half_bytes, w.launches, w.passes]
        });
        let mut figures = figures.chain([features.bytes_read, features.bytes_written]);
        if let Some(figure) = figures.find(|f| !(0.0..=LARGEST).contains(f)) {
            return Err(value(format!("kernel '{}' asks for {figure} of something", kernel.name)));
        }
        if *key != super::kernel_key(features) {
            return Err(value(format!("the key of kernel '{}' is not that of its operations", kernel.name)));
        }
    }
    section.copies.values().try_for_each(|copy| seconds(&copy.reason, copy.predicted))
}

fn seconds(what: &str, seconds: f64) -> Result<()> {
    match (0.0..=super::LONGEST).contains(&seconds) {
        true => Ok(()),
        false => Err(value(format!("{seconds} seconds are predicted for {what}"))),
    }
}

fn value(message: String) -> Box<Diagnostic> {
    input("profile.value", message).help("this file was not written by djinn-opt: measure again")
}

/// As written: a flat object for each operation.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberText {
    op: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
    shapes: String,
    flops: f64,
    bytes_read: f64,
    bytes_written: f64,
    elements: f64,
    half_bytes: f64,
    launches: f64,
    passes: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeaturesText {
    bytes_read: f64,
    bytes_written: f64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    regions: bool,
    members: Vec<MemberText>,
}

impl Serialize for Features {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let member = |m: &Member| MemberText {
            op: m.kind.name().to_owned(),
            dtype: m.dtype.map(|d| d.to_string()),
            shapes: m.shapes.clone(),
            flops: m.work.flops,
            bytes_read: m.work.bytes_read,
            bytes_written: m.work.bytes_written,
            elements: m.work.elements,
            half_bytes: m.work.half_bytes,
            launches: m.work.launches,
            passes: m.work.passes,
        };
        let Features { bytes_read, bytes_written, regions, .. } = *self;
        let members = self.members.iter().map(member).collect();
        FeaturesText { bytes_read, bytes_written, regions, members }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Features, D::Error> {
        use serde::de::Error;
        let text = FeaturesText::deserialize(deserializer)?;
        let member = |m: MemberText| {
            let MemberText {
                flops, bytes_read, bytes_written, elements, half_bytes, launches, passes, ..
            } = m;
            let kind = OpKind::from_name(&m.op)
                .ok_or_else(|| D::Error::custom(format!("there is no operation '{}'", m.op)))?;
            let dtype = m.dtype.as_deref().map(|d| {
                DType::from_mlir(d).ok_or_else(|| D::Error::custom(format!("there is no element type '{d}'")))
            });
            Ok(Member {
                kind,
                dtype: dtype.transpose()?,
                shapes: m.shapes,
                work: Work { flops, bytes_read, bytes_written, elements, half_bytes, launches, passes },
            })
        };
        Ok(Features {
            members: text.members.into_iter().map(member).collect::<std::result::Result<_, _>>()?,
            bytes_read: text.bytes_read,
            bytes_written: text.bytes_written,
            regions: text.regions,
        })
    }
}

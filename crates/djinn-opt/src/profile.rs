//! Profiles of runs: reading, adding to them, printing them, and calibrating from them.

use crate::args::CalibrateArgs;
use crate::run::{complain, print_text, printable};
use djinn::cost::profile::{ALARM, Judgement, MAX_BYTES, ProfileFit, RunProfile, Section, Subject, off};
use djinn::device::Profile;
use djinn::diag::{Context, Remark, Result, input};
use djinn::profile::Recorder;
use std::fmt::Write;
use std::path::Path;

/// Rows of a table of kernels.
const ROWS: usize = 15;

/// Runs scatter if the middle one takes more than this many times as long as the shortest.
const SCATTER: f64 = 1.5;

/// Remarks that are printed.
const REMARKS: usize = 5;

/// Reads a profile.
pub(crate) fn read(path: &Path) -> Result<RunProfile> {
    let place = || path.display().to_string();
    let failed = |e: std::io::Error| input("file.read", e.to_string());
    let size = std::fs::metadata(path).map_err(failed).at(place)?.len();
    if size > MAX_BYTES {
        return Err(input("profile.format", format!("more than {MAX_BYTES} bytes")).at(place()));
    }
    let text = std::fs::read_to_string(path).map_err(failed).at(place)?;
    RunProfile::from_json(&text, &place())
}

/// Reads a profile that is to be added to: none if the file is not there.
pub(crate) fn read_if_there(path: &Path) -> Result<RunProfile> {
    if path.exists() { read(path) } else { Ok(RunProfile::default()) }
}

/// Prints what was measured and adds it to a profile.
pub(crate) fn write(
    path: &Path,
    mut all: RunProfile,
    recorder: Recorder<'_>,
    device: Option<&Profile>,
) -> Result<()> {
    let (measured, notes) = recorder.finish();
    all.merge(&measured);
    let text = all.to_json()?;
    djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes()))?;
    for note in notes {
        complain(&format!("remark: {note}\n"));
    }
    for (subject, section) in &measured.sections {
        let known = device.or_else(|| Profile::builtin(&subject.planned_for));
        print_text(&table(subject, section, known.unwrap_or(Profile::generic())))?;
    }
    Ok(())
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.3} s"),
        s if s >= 1e-3 => format!("{:.3} ms", s * 1e3),
        s => format!("{:.2} µs", s * 1e6),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Kernels with the largest total time, predicted against measured; errors by class and of the whole run.
fn table(subject: &Subject, section: &Section, device: &Profile) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "\n{:<40} {:>6} {:>12} {:>12} {:>7} {:>7}",
        "kernel", "×", "predicted", "measured", "ratio", "share"
    );
    let mut rows: Vec<_> = section.kernels.values().map(|k| (section.launches(k), k)).collect();
    let total = |(n, k): &(f64, &djinn::cost::profile::KernelTimes)| n * k.measured.median();
    rows.sort_by(|a, b| total(b).total_cmp(&total(a)).then_with(|| a.1.name.cmp(&b.1.name)));
    let all: f64 = rows.iter().map(total).sum();
    for row @ (launches, kernel) in rows.iter().take(ROWS) {
        let name: String = printable(&kernel.name).chars().take(40).collect();
        let ratio = kernel.ratio().map_or("–".into(), |r| format!("{r:.2}"));
        let share = if all > 0.0 { percent(total(row) / all) } else { "–".into() };
        let times = [kernel.predicted, kernel.measured.median()].map(time);
        let _ =
            writeln!(out, "{name:<40} {launches:>6} {:>12} {:>12} {ratio:>7} {share:>7}", times[0], times[1]);
    }
    if rows.len() > ROWS {
        let rest: f64 = rows.iter().skip(ROWS).map(total).sum();
        let _ = writeln!(
            out,
            "{} more kinds of kernels take {} of the time",
            rows.len() - ROWS,
            percent(rest / all)
        );
    }
    out + &errors(subject, section, device)
}

/// Median errors by class, the accuracy of the step and the alarm.
fn errors(subject: &Subject, section: &Section, device: &Profile) -> String {
    let mut out = String::new();
    let judgement = Judgement::of_section(section, device);
    let _ = writeln!(out, "\n{:<18} {:>8} {:>14} {:>12}", "class", "kernels", "median error", "9 in 10");
    let classes = judgement.classes.iter().map(|(class, e)| (class.name(), *e));
    for (name, e) in classes.chain([("all", judgement.all)]) {
        let _ = writeln!(out, "{name:<18} {:>8} {:>14} {:>12}", e.count, percent(e.median), percent(e.p90));
    }
    let step = section.step.median();
    let accuracy = section.accuracy().map_or("–".into(), |a| percent(a.max(0.0)));
    let _ = writeln!(
        out,
        "\nstep: predicted {}, measured {} (median of {}, least {}), accuracy {accuracy}",
        time(section.predicted),
        time(step),
        section.runs(),
        time(section.step.min())
    );
    if step > SCATTER * section.step.min() {
        out += "the times of the runs scatter: the machine is busy, measure again when it is not\n";
    }
    if subject.planned_for != subject.ran.device {
        let (planned, ran) = (printable(&subject.planned_for), &subject.ran.device);
        let _ = writeln!(out, "the plan is for {planned} and ran on {ran}: its predictions are not judged");
        return out;
    }
    if section.accuracy().is_some_and(|a| a < ALARM) {
        let _ =
            writeln!(out, "ALARM: the accuracy is below {}: djinn-opt calibrate --from FILE", percent(ALARM));
    }
    out + &remarks(&off(section, device))
}

fn remarks(all: &[Remark]) -> String {
    let mut out: String = all.iter().take(REMARKS).map(|r| printable(&r.to_string()) + "\n").collect();
    if all.len() > REMARKS {
        let _ = writeln!(out, "{} further remarks not shown", all.len() - REMARKS);
    }
    out
}

/// Fits a device profile to profiles of runs.
pub(crate) fn calibrate(args: &CalibrateArgs) -> Result<bool> {
    let mut measured = RunProfile::default();
    for path in &args.from {
        measured.merge(&read(path)?);
    }
    let base = crate::planning::profile(&args.device)?;
    let files: Vec<String> =
        args.from.iter().map(|p| p.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect();
    let source = format!("djinn-opt calibrate --from {}", files.join(", "));
    let fit = djinn::calibrate_from(&measured, &base, args.mode.as_deref(), &source)?;
    if let Some(path) = &args.output {
        let text = djinn::fitted_toml(&fit);
        djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes()))
            .at(|| "the fitted profile")?;
    }
    print_text(&if args.json { fit_json(&fit) } else { fit_table(&fit) })?;
    Ok(true)
}

fn fit_json(fit: &ProfileFit) -> String {
    let side = |j: &Judgement| {
        let class = |(c, e): &(djinn::device::OpClass, djinn::cost::calibrate::Errors)| serde_json::json!({"class": c.name(), "count": e.count, "median": e.median, "p90": e.p90});
        serde_json::json!({
            "held_out": j.all.count, "median": j.all.median, "p90": j.all.p90,
            "classes": j.classes.iter().map(class).collect::<Vec<_>>(),
        })
    };
    let remarks: Vec<String> = fit.remarks.iter().map(ToString::to_string).collect();
    let object = serde_json::json!({
        "mode": fit.mode, "fitted": fit.fitted, "before": side(&fit.before), "after": side(&fit.after),
        "remarks": remarks,
    });
    format!("{object}\n")
}

fn fit_table(fit: &ProfileFit) -> String {
    let mut out = format!("{:<18} {:>9} {:>14} {:>14}\n", "class", "held out", "error before", "error after");
    let median = |j: &Judgement, class| {
        let found = j.classes.iter().find(|c| c.0 == class).map(|c| c.1);
        found.map_or("–".to_owned(), |e| percent(e.median))
    };
    for (class, e) in &fit.before.classes {
        let (before, after) = (percent(e.median), median(&fit.after, *class));
        let _ = writeln!(out, "{:<18} {:>9} {before:>14} {after:>14}", class.name(), e.count);
    }
    let (before, after) = (fit.before.all, fit.after.all);
    let _ = writeln!(
        out,
        "{:<18} {:>9} {:>14} {:>14}",
        "all",
        before.count,
        percent(before.median),
        percent(after.median)
    );
    let _ = writeln!(
        out,
        "\nfitted to {} kernels ({}); of those held out nine in ten were off by at most {} before, {} after",
        fit.fitted,
        printable(&fit.mode),
        percent(before.p90),
        percent(after.p90)
    );
    out + &fit.remarks.iter().map(|r| printable(&r.to_string()) + "\n").collect::<String>()
}

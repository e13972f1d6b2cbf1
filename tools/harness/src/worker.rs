//! Worker processes: a case that brings its process down, or never ends, is one record and not the end of the run.

use crate::pipeline::{self, Job};
use crate::stage::{self, Status};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The worker: reads one job a line, answers one record a line.
pub(crate) fn main() -> Result<bool, String> {
    stage::record_panics();
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let job = serde_json::from_str(&line).ok().and_then(|v| Job::from_json(&v));
        let record = pipeline::run(&job.ok_or("not a job")?);
        writeln!(out, "{record}").and_then(|()| out.flush()).map_err(|e| e.to_string())?;
    }
    Ok(true)
}

/// Runs all jobs on this many workers; gives their records in the order of the jobs.
pub(crate) fn run_all(jobs: &[Job], workers: usize, timeout: Duration) -> Result<Vec<Value>, String> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..jobs.len()).collect());
    let records: Mutex<Vec<Value>> = Mutex::new(vec![Value::Null; jobs.len()]);
    let next = || queue.lock().ok()?.pop_front();
    let serve = || -> Result<(), String> {
        let mut process = None;
        while let Some(i) = next() {
            let record = answer(&mut process, &jobs[i], timeout)?;
            records.lock().map_err(|_| "a thread failed")?[i] = record;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.clamp(1, jobs.len().max(1))).map(|_| scope.spawn(serve)).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or(Err("a thread failed".into())))
    })?;
    records.into_inner().map_err(|_| "a thread failed".into())
}

/// A running worker.
struct Process {
    child: Child,
    answers: Receiver<String>,
}

impl Process {
    fn start() -> Result<Process, String> {
        let failed = |e: std::io::Error| format!("a worker cannot be started: {e}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let out = child.stdout.take().ok_or("a worker has no output")?;
        let (send, answers) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.map(|line| send.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Ok(Process { child, answers })
    }

    /// Sends a job; whether it got there shows when the answer is read.
    fn send(&mut self, job: &Job) {
        if let Some(input) = &mut self.child.stdin {
            let _ = writeln!(input, "{}", job.to_json()).and_then(|()| input.flush());
        }
    }

    /// Says how the process ended, ending it if it has not.
    fn finish(&mut self) -> String {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() {
            let _ = self.child.kill();
        }
        ended.or_else(|| self.child.wait().ok()).map_or_else(|| "unknown".into(), |status| status.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The record of one job, from the worker at hand or a new one.
fn answer(process: &mut Option<Process>, job: &Job, timeout: Duration) -> Result<Value, String> {
    let mut worker = match process.take() {
        Some(worker) => worker,
        None => Process::start()?,
    };
    worker.send(job);
    match worker.answers.recv_timeout(timeout) {
        Ok(line) => {
            *process = Some(worker);
            serde_json::from_str(&line).map_err(|e| format!("a worker answered with no record: {e}"))
        }
        Err(RecvTimeoutError::Timeout) => {
            let message = format!("no answer within {} s", timeout.as_secs());
            drop(worker);
            Ok(crashed(job, &message))
        }
        Err(RecvTimeoutError::Disconnected) => {
            // The pipe closes a moment before the process is gone; killing it then would hide how it ended.
            std::thread::sleep(Duration::from_millis(200));
            Ok(crashed(job, &format!("the process ended: {}", worker.finish())))
        }
    }
}

fn crashed(job: &Job, message: &str) -> Value {
    json!({"case": job.case.name, "format": job.case.format, "dir": job.case.dir, "opset": job.opset,
        "status": Status::Crash.word(), "stage": "process", "code": "process", "message": message, "stages": {}})
}

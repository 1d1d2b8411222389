//! Tests of the API poller against fake VMMs.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream as Stream};
use std::process;
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;
use vm_metrics_testkit::wait::{Deadline, SOON};

use super::super::proc_scan::fixture::{Fake, Fixture};
use super::*;
use crate::model::Hypervisor;

/// A fake VMM on a socket: it answers each request with the next of its responses, byte for byte.
pub struct FakeVmm {
    dir: TempDir,
    requests: Arc<Mutex<String>>,
}

impl FakeVmm {
    pub fn new(answers: Vec<String>) -> Self {
        let answers = answers.into_iter();
        let mut answers = answers.map(String::into_bytes);
        Self::behaving(move |stream, _| match answers.next() {
            Some(answer) => stream.write_all(&answer).is_ok(),
            None => false,
        })
    }

    /// Does this with each question, until it answers false and the connection ends.
    pub fn behaving(mut behave: impl FnMut(&mut Stream, &str) -> bool + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let requests = Arc::new(Mutex::new(String::new()));
        let hears = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while let Some(question) = next_question(&mut stream) {
                    hears.lock().unwrap().push_str(&question);
                    if !behave(&mut stream, &question) {
                        break;
                    }
                }
            }
        });
        Self { dir, requests }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    pub fn requests(&self) -> String {
        self.requests.lock().unwrap().clone()
    }
}

/// The bytes of the HTTP servers of Cloud Hypervisor and Firecracker.
pub fn http_response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} \r\nServer: VMM API\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A head of HTTP, or a line.
fn next_question(stream: &mut Stream) -> Option<String> {
    let (mut question, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).ok()? == 1 {
        question.push(byte[0]);
        let is_http = question.starts_with(b"GET ");
        if is_http && question.ends_with(b"\r\n\r\n") || !is_http && byte == *b"\n" {
            return String::from_utf8(question).ok();
        }
    }
    None
}

/// What a VMM answers to one who is not in a hurry.
pub fn answer(query: Query, vmm: &FakeVmm) -> Result<VmmInfo, QueryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { query(tokio::net::UnixStream::connect(vmm.path()).await.unwrap()).await })
}

/// Asks for `GET /vcpus`, which is a number.
fn ask_vcpus(stream: tokio::net::UnixStream) -> QueryFuture {
    Box::pin(Http::over(stream, async |mut http| {
        let allocated_vcpus = Some(http.json("/vcpus").await?);
        let info = InstanceInfo { hypervisor: Hypervisor::Other, allocated_vcpus, ..InstanceInfo::default() };
        Ok(VmmInfo { info, unfinished: false })
    }))
}

pub fn ok(body: &str) -> String {
    http_response("200", body)
}

/// The sockets at these paths, asked at a moment.
struct Tick<'t> {
    api: &'t mut VmmApi,
    paths: Vec<PathBuf>,
}

impl Tick<'_> {
    fn at(&mut self, seconds: u64) -> (Vec<Option<u32>>, Vec<String>) {
        self.with_nics(seconds, &[])
    }

    fn with_nics(&mut self, seconds: u64, nics: &[Nic]) -> (Vec<Option<u32>>, Vec<String>) {
        let target = |path: &PathBuf| (Target { process: None, path: path.clone() }, nics.to_vec());
        let targets = self.paths.iter().map(target);
        let listing = self.api.list_at(Duration::from_secs(seconds), targets).unwrap();
        let vcpus = listing.instances.iter().map(|vm| vm.allocated_vcpus).collect();
        (vcpus, listing.texts())
    }

    /// Later questions are not waited for: until the answer is in.
    fn until(&mut self, seconds: u64, wanted: impl Fn(&(Vec<Option<u32>>, Vec<String>)) -> bool) {
        let mut deadline = Deadline::after(SOON);
        loop {
            let got = self.at(seconds);
            if wanted(&got) {
                return;
            }
            assert!(!deadline.has_passed(), "{got:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// It is asked again rarely, or when its NICs change.
#[test]
fn new_vms_are_known_in_their_first_tick() {
    let mut vcpus = 1;
    let vmm = FakeVmm::behaving(move |stream, _| {
        vcpus += 1;
        stream.write_all(ok(&vcpus.to_string()).as_bytes()).is_ok()
    });
    let mut api = VmmApi::new(&SourceContext::default(), ask_vcpus);
    let mut tick = Tick { api: &mut api, paths: vec![vmm.path()] };
    assert_eq!(tick.at(0), (vec![Some(2)], vec![]));
    assert_eq!(tick.at(29), (vec![Some(2)], vec![]));
    tick.until(30, |(vcpus, _)| *vcpus == [Some(3)]);
    tick.with_nics(31, &[Nic::local("tap0")]);
    let mut deadline = Deadline::after(SOON);
    while tick.with_nics(31, &[Nic::local("tap0")]).0 != [Some(4)] {
        assert!(!deadline.has_passed());
        thread::sleep(Duration::from_millis(5));
    }
    // The peer is this process, so it is the VM's.
    let listing = api.list_at(Duration::from_secs(32), std::iter::empty()).unwrap();
    assert_eq!(listing.instances, []);
}

#[test]
fn a_hanging_vmm_delays_only_its_first_tick() {
    let hanging: Vec<_> = (0..8).map(|_| FakeVmm::behaving(|_, _| true)).collect();
    let good = FakeVmm::new(vec![ok("4")]);
    let mut api = VmmApi::new(&SourceContext::default(), ask_vcpus);
    let paths = hanging.iter().chain([&good]).map(FakeVmm::path).collect();
    let mut tick = Tick { api: &mut api, paths };
    let began = Instant::now();
    assert_eq!(tick.at(0).0, [Some(4)]);
    // One deadline for all of them, not one each; the machine may be busy.
    assert!(began.elapsed() < DEADLINE * 8, "{:?}", began.elapsed());
    tick.until(0, |(vcpus, problems)| *vcpus == [Some(4)] && problems.len() == 8);
    let (_, problems) = tick.at(0);
    assert!(problems[0].ends_with("api.sock: no answer within 200 ms: it is busy or hangs"), "{problems:?}");
    tick.at(1);
    let began = Instant::now();
    (0..10).for_each(|_| drop(tick.at(1)));
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
}

#[test]
fn a_broken_socket_keeps_the_last_answer() {
    let mut answers =
        vec![ok("4"), ok("\"many\""), "HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n".into()].into_iter();
    let vmm = FakeVmm::behaving(move |stream, _| match answers.next() {
        Some(answer) => stream.write_all(answer.as_bytes()).is_ok(),
        None => false,
    });
    let mut api = VmmApi::new(&SourceContext::default(), ask_vcpus);
    let mut tick = Tick { api: &mut api, paths: vec![vmm.path()] };
    assert_eq!(tick.at(0), (vec![Some(4)], vec![]));
    for (second, problem) in [
        (30, "GET /vcpus: unexpected value at line 1, column 6"),
        (31, "GET /vcpus: 500 Internal Server Error"),
        (33, "the connection ended within the answer"),
    ] {
        let problem = format!("{}: {problem}", vmm.path().display());
        tick.until(second, |got| *got == (vec![Some(4)], vec![problem.clone()]));
    }
    drop(vmm);
    tick.until(40, |(vcpus, problems)| {
        *vcpus == [Some(4)] && problems[0].contains("cannot connect: No such file")
    });
}

#[test]
fn a_flood_is_cut_off() {
    let header = "HTTP/1.1 200 \r\nContent-Length: 104857600\r\n\r\n";
    for (start, problem) in
        [(header, "larger than 1048576 bytes"), ("HTTP/1.1 200 \r\nX: ", ""), ("junk", "no HTTP")]
    {
        let vmm = FakeVmm::behaving(move |stream, _| {
            let mut sent = stream.write_all(start.as_bytes());
            for _ in 0..1600 {
                sent = sent.and_then(|()| stream.write_all(&[b'1'; 1 << 16]));
            }
            sent.is_ok()
        });
        let error = answer(ask_vcpus, &vmm).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

/// So is a file that is no socket.
#[test]
fn a_path_out_of_the_chroot_is_refused() {
    let fixture = Fixture::with(&[Fake { pid: 7, ..Fake::QEMU }]);
    let root = fixture.process(7).join("root");
    fs::create_dir_all(root.join("run")).unwrap();
    let outside = FakeVmm::new(vec![ok("4")]);
    std::os::unix::fs::symlink(outside.path(), root.join("run/out.sock")).unwrap();
    fs::write(root.join("run/file"), "").unwrap();
    let inside = UnixListener::bind(root.join("run/in.sock")).unwrap();
    thread::spawn(move || {
        for mut stream in inside.incoming().flatten() {
            next_question(&mut stream);
            stream.write_all(ok("2").as_bytes()).unwrap();
        }
    });
    let query = |path: &str| {
        let mut api = VmmApi::new(&fixture.context(), ask_vcpus);
        let target = Target { process: Some((7, 5000)), path: path.into() };
        let listing = api.list(std::iter::once((target, Vec::new()))).unwrap();
        let vms: Vec<_> =
            listing.instances.iter().map(|vm| (vm.hypervisor_pid, vm.allocated_vcpus)).collect();
        (vms, listing.texts().concat())
    };
    assert_eq!(query("/run/in.sock"), (vec![(Some(7), Some(2))], String::new()));
    for path in ["/run/file", "/run/out.sock", "/run/none"] {
        assert_eq!(query(path), (vec![], "process 7: its API socket cannot be used".to_owned()), "{path}");
    }
}

#[test]
fn a_socket_of_another_process_is_refused() {
    let vmm = FakeVmm::new(vec![ok("4")]);
    let mut api = VmmApi::new(&SourceContext::default(), ask_vcpus);
    let mut other = process::Command::new("cat")
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::null())
        .spawn()
        .unwrap();
    let start_ticks = ProcessDir::new(&Host::default(), other.id()).stat().unwrap().start_ticks;
    let target = Target { process: Some((other.id(), start_ticks)), path: vmm.path() };
    let listing = api.list(std::iter::once((target, Vec::new()))).unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(listing.instances, []);
    let problem = format!("process {}: its API socket cannot be used", other.id());
    assert_eq!(listing.problems[0].to_string(), problem);
    assert_eq!(vmm.requests(), "", "nothing was asked");
}

/// Each user has a share, and the sockets of root are asked all the same.
#[test]
fn a_thousand_sockets_of_one_user_delay_nobody() {
    let fixture = Fixture::new();
    let me = rustix::process::getuid().as_raw();
    let mut api = VmmApi::new(&fixture.context(), ask_vcpus);
    let users = [(me + 1000, 1000), (me + 1001, 2), (0, 40)];
    let mut targets = Vec::new();
    for (uid, count) in users {
        for _ in 0..count {
            let pid = 1 + u32::try_from(targets.len()).unwrap();
            fixture.put(&Fake { pid, ..Fake::QEMU });
            fixture.set_user(pid, uid);
            targets.push((Target { process: Some((pid, 5000)), path: "/none".into() }, Vec::new()));
        }
    }
    let listing = api.list(targets.into_iter()).unwrap();
    let waiting: Vec<_> =
        listing.overuse.into_list().into_iter().map(|user| (user.uid, user.count)).collect();
    assert_eq!(waiting, [(Some(me + 1000), 1000 - 14)]);
    let asked = |uid| {
        api.known.values().filter(|known| known.uid == Some(uid) && !known.is_due(Duration::ZERO)).count()
    };
    assert_eq!(users.map(|(uid, _)| asked(uid)), [14, 2, 32]);
}

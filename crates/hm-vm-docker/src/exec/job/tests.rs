use super::super::output::{Watcher, pipes};
use super::*;
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;

type Frame = Result<LogOutput, bollard::errors::Error>;

/// The other end of a connection.
struct Helper {
    input: DuplexStream,
    output: mpsc::Sender<Frame>,
}

fn nonce() -> Nonce {
    Nonce::new([7; Nonce::SIZE])
}

fn connection() -> (Connection, Helper) {
    let (input, seen) = duplex(64);
    let (output, mut frames) = mpsc::channel(1);
    let connection = Connection {
        input: Box::pin(input),
        output: Box::pin(futures_util::stream::poll_fn(move |cx| {
            frames.poll_recv(cx)
        })),
    };
    let helper = Helper {
        input: seen,
        output,
    };
    (connection, helper)
}

fn job(stop: &Cancellation) -> Job {
    Job {
        frame: b"R....".to_vec(),
        nonce: nonce(),
        stop: stop.clone(),
        grace: Duration::from_millis(20),
    }
}

impl Helper {
    async fn frame(&mut self) -> u8 {
        let mut head = [0; 5];
        self.input.read_exact(&mut head).await.expect("a frame");
        let [kind, length @ ..] = head;
        // The request of these tests has no payload.
        if kind != b'R' {
            let mut payload = vec![0; u32::from_le_bytes(length) as usize];
            self.input
                .read_exact(&mut payload)
                .await
                .expect("a payload");
        }
        kind
    }

    async fn stdout(&self, bytes: &[u8]) -> bool {
        let message = Bytes::copy_from_slice(bytes);
        self.output
            .send(Ok(LogOutput::StdOut { message }))
            .await
            .is_ok()
    }

    async fn end(&self) {
        let message = Bytes::copy_from_slice(nonce().bytes());
        let stderr = LogOutput::StdErr { message };
        self.output
            .send(Ok(stderr))
            .await
            .expect("somebody who reads");
        let mut report = nonce().bytes().to_vec();
        report.extend([1, 0, 0, 0, 3]);
        report.resize(Nonce::SIZE + Report::SIZE, 0);
        assert!(self.stdout(&report).await);
    }
}

async fn all(watcher: &mut Watcher) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = watcher.output.recv().await {
        all.extend_from_slice(&chunk.bytes);
    }
    all
}

#[tokio::test]
async fn output_arrives_before_the_end_of_the_job() {
    let (mut connection, mut helper) = connection();
    let (side, mut watcher) = pipes();
    let running = Running::new(&mut connection, job(&Cancellation::new()), side);
    let played = async {
        assert_eq!(helper.frame().await, b'R');
        assert!(helper.stdout(b"one").await);
        assert!(helper.stdout(b"two").await);
        helper.end().await;
    };
    let (ended, (), output) = tokio::join!(running.end(), played, all(&mut watcher));
    let kind = ended.expect("an end").report.kind;
    assert_eq!(kind, hm_vm_sys::helper::ReportKind::Exited(3));
    assert_eq!(output, b"onetwo");
}

#[tokio::test]
async fn nothing_is_read_while_the_caller_takes_nothing() {
    let (mut connection, helper) = connection();
    let (side, mut watcher) = pipes();
    let running = Running::new(&mut connection, job(&Cancellation::new()), side);
    let mut running = std::pin::pin!(running.end());
    let mut taken = 0;
    // Until the job makes no room any more: then nothing but the caller can go on.
    loop {
        tokio::select! {
            biased;
            _ = &mut running => panic!("the job has ended"),
            sent = helper.stdout(b"x") => assert!(sent),
            () = tokio::task::yield_now() => break,
        }
        taken += 1;
        assert!(taken < 100, "everything is taken");
    }
    // All of it comes when it is asked for.
    let rest = async {
        helper.end().await;
    };
    let (ended, (), output) = tokio::join!(running, rest, all(&mut watcher));
    assert!(ended.is_ok());
    assert_eq!(output.len(), taken);
}

#[tokio::test]
async fn a_connection_that_ends_early_is_no_end() {
    let (mut connection, helper) = connection();
    let (side, mut watcher) = pipes();
    let running = Running::new(&mut connection, job(&Cancellation::new()), side);
    let played = async {
        assert!(helper.stdout(b"half").await);
        drop(helper);
    };
    let (ended, (), output) = tokio::join!(running.end(), played, all(&mut watcher));
    assert!(matches!(ended, Err(Lost::Connection(_))), "{ended:?}");
    assert_eq!(output, b"half");
}

#[tokio::test]
async fn one_stream_without_its_end_is_no_end() {
    let (mut connection, helper) = connection();
    let (side, mut watcher) = pipes();
    let running = Running::new(&mut connection, job(&Cancellation::new()), side);
    let played = async {
        let mut report = nonce().bytes().to_vec();
        report.resize(Nonce::SIZE + Report::SIZE, 0);
        assert!(helper.stdout(&report).await);
        drop(helper);
    };
    let (ended, (), _) = tokio::join!(running.end(), played, all(&mut watcher));
    assert!(matches!(ended, Err(Lost::Connection(_))), "{ended:?}");
}

#[tokio::test]
async fn a_stop_terminates_and_then_kills() {
    let (mut connection, mut helper) = connection();
    let (side, mut watcher) = pipes();
    let stop = Cancellation::new();
    let running = Running::new(&mut connection, job(&stop), side);
    let played = async {
        assert_eq!(helper.frame().await, b'R');
        stop.cancel(CancelCause::User);
        assert_eq!(helper.frame().await, b'S');
        assert_eq!(helper.frame().await, b'K');
        helper.end().await;
    };
    let (ended, (), _) = tokio::join!(running.end(), played, all(&mut watcher));
    let stopped = ended.expect("an end").stopped;
    assert_eq!(stopped, Some(Error::from(CancelCause::User)));
}

#[tokio::test]
async fn who_is_asked_to_kill_at_once_does_not_terminate_first() {
    let (mut connection, mut helper) = connection();
    let (side, mut watcher) = pipes();
    let stop = Cancellation::new();
    stop.kill(CancelCause::User);
    let running = Running::new(&mut connection, job(&stop), side);
    let played = async {
        assert_eq!(helper.frame().await, b'R');
        assert_eq!(helper.frame().await, b'K');
        helper.end().await;
    };
    let (ended, (), _) = tokio::join!(running.end(), played, all(&mut watcher));
    assert!(ended.expect("an end").stopped.is_some());
}

#[tokio::test]
async fn what_nobody_waits_for_is_killed() {
    let (mut connection, mut helper) = connection();
    let (side, watcher) = pipes();
    let running = Running::new(&mut connection, job(&Cancellation::new()), side);
    let played = async {
        assert_eq!(helper.frame().await, b'R');
        drop(watcher);
        assert_eq!(helper.frame().await, b'K');
        assert!(helper.stdout(b"last words").await);
        helper.end().await;
    };
    let (ended, ()) = tokio::join!(running.end(), played);
    assert!(ended.is_ok());
}

#[tokio::test]
async fn a_helper_that_does_not_answer_a_kill_is_given_up() {
    let (mut connection, _helper) = connection();
    let (side, mut watcher) = pipes();
    let stop = Cancellation::new();
    stop.kill(CancelCause::User);
    let mut running = Running::new(&mut connection, job(&stop), side);
    running.patience = Duration::from_millis(20);
    let (ended, _) = tokio::join!(running.end(), all(&mut watcher));
    assert!(matches!(ended, Err(Lost::Silent)), "{ended:?}");
}

#[tokio::test]
async fn a_frame_that_is_sent_in_part_is_sent_in_full() {
    let (mut connection, mut helper) = connection();
    let (side, mut watcher) = pipes();
    let running = Running::new(&mut connection, job(&Cancellation::new()), side);
    let input = watcher.input.clone();
    let played = async {
        assert_eq!(helper.frame().await, b'R');
        // Longer than what the way to the helper holds.
        let frames = hm_vm_sys::helper::input_frames(&[b'x'; 1000]);
        input.send(frames).await.expect("a job");
        let mut first = [0; 1];
        helper.input.read_exact(&mut first).await.expect("its kind");
        helper.end().await;
        let mut rest = vec![0; 1004];
        helper.input.read_exact(&mut rest).await.expect("the rest");
    };
    let (ended, (), _) = tokio::join!(running.end(), played, all(&mut watcher));
    assert!(ended.is_ok());
}

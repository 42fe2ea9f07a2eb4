//! Clauses about questions and answers.

use std::sync::Arc;

use serde_json::json;
use swarm_core::escalation::BlockStatus;
use swarm_core::port::store::{AnswerError, Commit, Release, SignalKind, Store};
use swarm_core::run::RunStatus;

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

/// The run goes on with exactly this answer.
pub async fn an_answer_wakes_its_run(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let blocks = vec![block("q", "r")];
    store.commit(Commit { blocks, ..release(&claim, waiting()) }).await?;
    let value = Arc::new(json!({ "choice": "left" }));
    let answered = store.answer(&block_id("q"), Arc::clone(&value), person("ann"), t(9)).await?;
    assert_eq!(answered.status, BlockStatus::Answered);
    assert_eq!(answered.answer.as_ref(), Some(&*value));
    assert_eq!(
        (answered.answered_by.clone(), answered.answered_at),
        (Some(person("ann")), Some(t(9)))
    );
    assert_eq!(store.block(&block_id("q")).await?, Some(answered));
    assert_eq!(status(&*store, "r").await?, RunStatus::Ready);
    assert_eq!(
        mailbox(&*store, "r").await?,
        [SignalKind::Answered { block: block_id("q"), value }]
    );
    Ok(Verdict::Held)
}

/// A hundred people click at once.
pub async fn of_many_different_answers_exactly_one_wins(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let blocks = vec![block("q", "r")];
    store.commit(Commit { blocks, ..release(&claim, waiting()) }).await?;
    let answers = (0..100).map(|n| {
        let store: Arc<dyn Store> = Arc::clone(&store);
        tokio::spawn(async move {
            let value = Arc::new(json!({ "choice": n }));
            store.answer(&block_id("q"), value, person(&format!("p{n}")), t(n)).await
        })
    });
    let (mut winners, mut told) = (Vec::new(), Vec::new());
    for answer in futures::future::join_all(answers).await {
        match answer? {
            Ok(block) => winners.push(block),
            Err(AnswerError::AlreadyAnswered(block)) => told.push(*block),
            Err(other) => return Err(other.into()),
        }
    }
    assert_eq!((winners.len(), told.len()), (1, 99));
    assert!(told.iter().all(|block| *block == winners[0]), "the losers see the winner");
    assert_eq!(store.block(&block_id("q")).await?, Some(winners.remove(0)));
    assert_eq!(mailbox(&*store, "r").await?.len(), 1, "one answer, one signal");
    Ok(Verdict::Held)
}

/// A retried click is no second answer.
pub async fn the_same_answer_by_the_same_person_changes_nothing(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.commit(Commit { blocks: vec![block("q", "r")], ..commit(&claim) }).await?;
    let value = || Arc::new(json!({ "choice": "left" }));
    let first = store.answer(&block_id("q"), value(), person("ann"), t(5)).await?;
    let again = store.answer(&block_id("q"), value(), person("ann"), t(6)).await?;
    assert_eq!(again, first);
    assert_eq!(mailbox(&*store, "r").await?.len(), 1);
    let other = store.answer(&block_id("q"), value(), person("bob"), t(7)).await;
    assert!(matches!(other, Err(AnswerError::AlreadyAnswered(block)) if *block == first));
    Ok(Verdict::Held)
}

/// Unknown, too late, or no longer asked.
pub async fn an_answer_that_cannot_be_taken_says_why(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let blocks = vec![block("answered", "r"), block("withdrawn", "r")];
    store.commit(Commit { blocks, ..commit(&claim) }).await?;
    let value = |choice: &str| Arc::new(json!({ "choice": choice }));
    let answer = |id: &str, choice: &str| {
        let (store, id, value) = (Arc::clone(&store), block_id(id), value(choice));
        async move { store.answer(&id, value, person("ann"), t(5)).await }
    };
    answer("answered", "left").await?;
    let withdrawn = vec![block_id("withdrawn"), block_id("answered"), block_id("nobody")];
    store.commit(Commit { withdrawn, ..commit(&claim) }).await?;
    let unknown = answer("nobody", "left").await;
    assert!(matches!(&unknown, Err(AnswerError::Unknown(id)) if *id == block_id("nobody")));
    let second = answer("answered", "right").await;
    assert!(
        matches!(&second, Err(AnswerError::AlreadyAnswered(block))
        if block.answer == Some(json!({ "choice": "left" }))),
        "{second:?}"
    );
    let stale = answer("withdrawn", "left").await;
    assert!(
        matches!(&stale, Err(AnswerError::Withdrawn(block))
        if block.status == BlockStatus::Withdrawn),
        "{stale:?}"
    );
    assert_eq!(mailbox(&*store, "r").await?.len(), 1, "only the first answer was told");
    Ok(Verdict::Held)
}

/// Asking again after a crash asks nothing new, not even what was answered.
pub async fn a_block_that_exists_is_left_as_it_is(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.commit(Commit { blocks: vec![block("q", "r")], ..commit(&claim) }).await?;
    let value = Arc::new(json!({ "choice": "left" }));
    let answered = store.answer(&block_id("q"), value, person("ann"), t(5)).await?;
    let mut again = block("q", "r");
    again.ask.question = "Which way now?".to_owned();
    store.commit(Commit { blocks: vec![again], ..commit(&claim) }).await?;
    assert_eq!(store.block(&block_id("q")).await?, Some(answered));
    Ok(Verdict::Held)
}

/// In the order in which they were asked.
pub async fn blocks_are_listed_by_run_and_status(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let (one, two) = (claimed(&*store, "one").await?, claimed(&*store, "two").await?);
    store.commit(Commit { blocks: vec![block("b", "one")], ..commit(&one) }).await?;
    store.commit(Commit { blocks: vec![block("c", "two")], ..commit(&two) }).await?;
    store.commit(Commit { blocks: vec![block("a", "one")], ..commit(&one) }).await?;
    store.answer(&block_id("b"), Arc::new(json!(1)), person("ann"), t(5)).await?;
    store.commit(Commit { withdrawn: vec![block_id("c")], ..commit(&two) }).await?;
    let list = |of: Option<&'static str>, status| {
        let store = Arc::clone(&store);
        async move {
            let of = of.map(run);
            let blocks = store.blocks(of.as_ref(), status).await?;
            Ok::<_, swarm_core::port::store::Error>(
                blocks.into_iter().map(|block| block.id.to_string()).collect::<Vec<_>>().join(" "),
            )
        }
    };
    assert_eq!(list(None, None).await?, "b c a");
    assert_eq!(list(Some("one"), None).await?, "b a");
    assert_eq!(list(None, Some(BlockStatus::Open)).await?, "a");
    assert_eq!(list(Some("one"), Some(BlockStatus::Answered)).await?, "b");
    assert_eq!(list(Some("two"), Some(BlockStatus::Withdrawn)).await?, "c");
    assert_eq!(list(Some("two"), Some(BlockStatus::Open)).await?, "");
    assert_eq!(list(Some("nobody"), None).await?, "");
    Ok(Verdict::Held)
}

/// `reserved_by` is written with the question and lasts until someone takes the run up again.
pub async fn a_worker_keeps_its_slot_while_its_question_is_open(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let reserved = || {
        let store = Arc::clone(&store);
        async move {
            let record = store.run(&run("r")).await?.expect("there");
            Ok::<_, swarm_core::port::store::Error>(record.reserved_by)
        }
    };
    let claim = claimed(&*store, "r").await?;
    store.commit(Commit { blocks: vec![block("q", "r")], ..commit(&claim) }).await?;
    assert_eq!(reserved().await?, Some(worker("w1")), "with the question");
    store.commit(release(&claim, waiting())).await?;
    assert_eq!(reserved().await?, Some(worker("w1")), "while parked");
    store.signal(&run("r"), None, named("poke"), t(4)).await?;
    let claim = store.claim(&run("r"), &worker("w2"), t(4), TTL).await?.expect("it was woken");
    store.commit(Commit { blocks: vec![block("q", "r")], ..commit(&claim) }).await?;
    assert_eq!(reserved().await?, Some(worker("w2")), "with the question asked again");
    let seen = store.signals(&run("r")).await?[0].id;
    store.commit(release(&claim, Release::Waiting { wake_at: None, seen })).await?;
    store.answer(&block_id("q"), Arc::new(json!(1)), person("ann"), t(5)).await?;
    assert_eq!(reserved().await?, Some(worker("w2")), "until taken up");
    let claim = self::claim(&*store, "r").await?;
    assert_eq!(reserved().await?, None, "the lease says it now");
    let blocks = vec![block("q2", "r")];
    store.commit(Commit { blocks, ..commit(&claim) }).await?;
    store.commit(Commit { withdrawn: vec![block_id("q2")], ..commit(&claim) }).await?;
    assert_eq!(reserved().await?, None, "nothing is open");
    store.commit(release(&claim, Release::Ready)).await?;
    assert_eq!(reserved().await?, None);
    Ok(Verdict::Held)
}

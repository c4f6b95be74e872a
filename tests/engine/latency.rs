//! A mined block is noticed at once, not at somebody's polling interval.

use std::time::{Duration, Instant};

use crate::{settle_in_background, support::World};

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_answered_within_a_quarter_second_of_the_block() {
    let world = World::stepped().await;
    let service = world.service().await;
    let mut waits = Vec::new();
    for n in 0..7 {
        let asked = settle_in_background(&service, &world.payment(n, 1_000));
        world.node.until_pending(1).await;
        world.until("select count(*) from attempt where sent_answer is null", 0).await;
        let mined = Instant::now();
        world.node.mine(1).await;
        let answer = asked.await.unwrap().expect("an answer");
        waits.push(mined.elapsed());
        assert_eq!(answer["success"], true, "{answer}");
    }
    // The median, because the machine that runs the tests does other things too.
    waits.sort();
    assert!(waits[3] < Duration::from_millis(250), "{waits:?}");
    service.stop().await;
    world.stop().await;
}

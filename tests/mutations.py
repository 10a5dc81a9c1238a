"""Breaks one rule after the other in a copy of the package and expects its test to go red: `make mutations`.

With words, `python -m tests.mutations mark lease`, only the rules that hold one of them.

Not part of `make test`, since it runs tests for some minutes; that each break still finds its place in the code, and
each test exists, is tested there (`tests/scenarios/test_guarantees.py`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("watcher", "tests", "migrations", "pyproject.toml")
_LIMIT_S = 300
_HUNG = -1
_DAEMON = "tests/integration/daemon"
_STORE = "tests/unit/store"
_SCENARIOS = "tests/scenarios"
_SIMULATION = "tests/simulation/test_simulation.py"


@dataclass(frozen=True)
class Break:
    """A rule that is broken on purpose: `old`, which stands once in the file, becomes `new`."""

    rule: str
    path: str
    old: str
    new: str
    test: str


BREAKS = [
    Break(
        "the mark moves only after the last page",
        "watcher/poll.py",
        "window=window, now_ms=self._now_ms())\n",
        "window=window, now_ms=self._now_ms())\n"
        "            watches.update_mark(\n"
        "                session, watch_id=self.watch_id, mark_s=window.to_s, now_ms=self._now_ms()\n"
        "            )\n",
        f"{_DAEMON}/test_poll.py::test_poll_interrupted_between_pages_goes_on_at_its_cursor[sqlite]",
    ),
    Break(
        "what lies before the mark is listed again",
        "watcher/domain/window.py",
        "max(0, mark_s - overlap_s) if overlap_s > 0 else None",
        "None",
        f"{_SCENARIOS}/test_time.py::test_scenario_01_second_file_of_a_second_that_was_listed_already_is_found[sqlite]",
    ),
    Break(
        "an interrupted listing goes on at its cursor",
        "watcher/poll.py",
        "cursor=page.cursor_next,",
        "cursor=None,",
        f"{_DAEMON}/test_poll.py::test_poll_interrupted_between_pages_goes_on_at_its_cursor[sqlite]",
    ),
    Break(
        "the end of the window is frozen before the listing",
        "watcher/poll.py",
        "mark_s = poll.to_s if watch.mark_s is None else max(watch.mark_s, poll.to_s)",
        "mark_s = int(self.clock.now_s())",
        f"{_SCENARIOS}/test_time.py::test_scenario_04_end_of_the_window_is_frozen_however_long_the_listing_takes"
        "[sqlite]",
    ),
    Break(
        "a mark that the server refused does not count as told",
        "watcher/poll.py",
        "**describe_error(error))\n            return\n        with self.database.write() as session:\n"
        "            watches.update_remote_mark(",
        "**describe_error(error))\n        with self.database.write() as session:\n"
        "            watches.update_remote_mark(",
        f"{_DAEMON}/test_poll.py"
        "::test_poll_when_the_server_refuses_the_mark_keeps_its_own_and_tells_it_next_time[sqlite]",
    ),
    Break(
        "an error is never an empty listing",
        "watcher/poll.py",
        "pages_before=before[0])\n            raise\n",
        "pages_before=before[0])\n",
        f"{_SCENARIOS}/test_time.py::test_scenario_29_failing_source_is_an_error_and_no_empty_listing[sqlite]",
    ),
    Break(
        "a known name keeps its row",
        "watcher/store/samples.py",
        "INSERT OR IGNORE INTO samples",
        "INSERT OR REPLACE INTO samples",
        f"{_STORE}/test_ledger.py"
        "::test_page_with_known_names_counts_only_the_new_and_keeps_the_first_discovery[sqlite]",
    ),
    Break(
        "a sample is looked up after an interrupted attempt",
        "watcher/jobs/upload.py",
        "look_up_first=context.run.was_begun_before or sample.attempts > 0",
        "look_up_first=False",
        f"{_DAEMON}/test_leftovers.py::test_sample_registered_before_a_shutdown_is_looked_up_afterwards[sqlite]",
    ),
    Break(
        "a sample is looked up after an unknown outcome",
        "watcher/lightly/workflows/register.py",
        "            look_up = True\n",
        "            look_up = False\n",
        f"{_SCENARIOS}/test_effects.py"
        "::test_scenario_10_request_that_was_accepted_but_timed_out_is_looked_up_and_not_repeated"
        "[sqlite-watcher.lightly.samples-create_sample_with_write_urls]",
    ),
    Break(
        "a sampling that was lost sight of is waited for",
        "watcher/lightly/workflows/sampling.py",
        'if error.code != "TAG_NAME_EXISTS" or not adopt:',
        "if error:",
        f"{_DAEMON}/test_lost_sampling.py::test_sampling_that_a_killed_attempt_had_asked_for_is_waited_for[sqlite]",
    ),
    Break(
        "who lost the lease writes nothing",
        "watcher/store/runs.py",
        ".where(runs.c.id == run_id, runs.c.lease_owner == owner, runs.c.state == RunState.RUNNING)\n"
        "        .values(lease_owner=None",
        ".where(runs.c.id == run_id)\n        .values(lease_owner=None",
        "tests/unit/jobs/test_runner.py::test_run_whose_lease_was_lost_writes_nothing_over_the_new_owner[sqlite]",
    ),
    Break(
        "a run whose lease ran out is taken up",
        "watcher/store/claims.py",
        "    release_expired(session, now_ms=now_ms)\n    limits",
        "    limits",
        f"{_STORE}/test_claims.py::test_lease_that_ran_out_lets_another_take_the_run_and_refuses_the_first[sqlite]",
    ),
    Break(
        "the batches of a watch go one after another",
        "watcher/store/claims.py",
        "        batches.c.id == head.c.batch_id,\n",
        "",
        f"{_STORE}/test_claims.py::test_claim_takes_only_of_the_oldest_open_batch_of_a_watch[sqlite]",
    ),
    Break(
        "a step ends after its last shard",
        "watcher/store/stepping.py",
        "    if open_shards:\n        return False\n",
        "",
        "tests/unit/jobs/test_shards.py::test_step_ends_with_one_run_after_its_last_shard[sqlite]",
    ),
    Break(
        "the watch that was served longest ago comes next",
        "watcher/store/claims.py",
        "n_running, func.coalesce(turns.c.served_ms, 0), taken.c.available_ms",
        "taken.c.available_ms",
        f"{_STORE}/test_fairness.py::test_watch_with_a_long_queue_does_not_keep_others_waiting[sqlite]",
    ),
    Break(
        "nothing of an old leader is committed",
        "watcher/leadership.py",
        "            self._leadership.check(session)\n",
        "",
        f"{_STORE}/test_leadership.py::test_write_of_an_old_leader_is_refused_and_counted[postgres]",
    ),
    Break(
        "one daemon a store",
        "watcher/store/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        f"{_STORE}/test_lock.py::test_lock_held_by_another_process_is_refused_and_free_after_its_kill[sqlite]",
    ),
    Break(
        "a half-written file waits",
        "watcher/jobs/upload_outcomes.py",
        "        if waits:\n",
        "        if False:\n",
        f"{_DAEMON}/test_pipeline.py::test_truncated_file_waits_and_is_done_once_it_is_whole[sqlite]",
    ),
    Break(
        "an expired URL is renewed before the sample is blamed",
        "watcher/jobs/upload.py",
        "            if sample.file_name in found:\n",
        "            if not sample:\n",
        f"{_DAEMON}/test_pipeline.py::test_sample_whose_read_url_expired_gets_a_fresh_one[sqlite]",
    ),
    Break(
        "picks differ from all earlier picks",
        "watcher/jobs/sampling.py",
        "preselected_tag_id=prepared.preselected_tag_id,",
        "preselected_tag_id=None,",
        f"{_DAEMON}/test_pipeline.py::test_two_batches_are_registered_embedded_picked_and_delivered[sqlite]",
    ),
    Break(
        "a delivery is done only with the receiver's word",
        "watcher/sinks/manifest.py",
        "        except OSError as error:\n            raise StoreUnavailableError(",
        '        except OSError as error:\n            return Receipt(location="", facts={})\n'
        "            raise StoreUnavailableError(",
        f"{_SCENARIOS}/test_effects.py"
        "::test_scenario_12_delivery_is_done_with_the_receivers_word_alone[sqlite]",
    ),
    Break(
        "what a killed process left is removed at the start",
        "watcher/data_folder.py",
        "for path in work_dir(settings).iterdir():",
        "for path in work_dir(settings).glob('nothing'):",
        "tests/acceptance/test_crash_matrix.py"
        "::test_daemon_killed_at_a_point_ends_as_if_it_had_not_been[sqlite-pipeline-embed.csv_uploaded]",
    ),
    Break(
        "an effect has a crash point behind it",
        "watcher/poll.py",
        '        crash_point("poll.page_stored")\n',
        "",
        "tests/unit/domain/test_crash_points.py"
        "::test_every_durable_effect_of_the_daemon_has_a_crash_point_behind_it",
    ),
    Break(
        "what a proxy says instead of the server is no verdict on a run",
        "watcher/jobs/runner.py",
        "    if isinstance(error, ProtocolError):\n        return False\n",
        "",
        "tests/unit/jobs/test_runner.py"
        "::test_failed_attempt_is_the_last_one_only_where_a_retry_cannot_help[ProtocolError -50-False]",
    ),
    Break(
        "a store whose file was replaced takes no more writes",
        "watcher/database/engine.py",
        "        self._check_file()\n",
        "",
        "tests/unit/database/test_failures.py"
        "::test_guarded_file_that_was_replaced_takes_no_more_writes_and_says_so",
    ),
    Break(
        "who cannot write is not ready",
        "watcher/database/engine.py",
        "            self.last_failure = str(error)\n",
        "",
        "tests/unit/ops/test_health.py"
        "::test_ready_while_nothing_can_be_written_is_503_with_the_reason_until_a_write_succeeds",
    ),
    Break(
        "the server is told the mark of the store, not of its clock",
        "watcher/poll.py",
        "self._tell_remote_mark(mark_s)",
        "self._tell_remote_mark(mark_s + self.config.poll.hold_back_s)",
        f"{_SIMULATION}::test_schedule_of_faults_and_crashes_loses_and_doubles_nothing[0]",
    ),
    Break(
        "what is left of a listing is listed before the mark moves",
        "watcher/lightly/workflows/listing.py",
        "        if not page.has_more:\n",
        "        if page.data or not page.has_more:\n",
        f"{_SIMULATION}::test_schedule_of_faults_and_crashes_loses_and_doubles_nothing[0]",
    ),
    Break(
        "a delivery bears the same id at every attempt",
        "watcher/domain/delivery.py",
        'uuid.uuid5(_NAMESPACE, "\\n".join(parts))',
        "uuid.uuid4()",
        f"{_SCENARIOS}/test_effects.py"
        "::test_scenario_42_webhook_fired_while_its_receiver_is_deployed_arrives_later_once[sqlite]",
    ),
    Break(
        "an object that was written again is noticed",
        "watcher/overwrites.py",
        "    if policy is OverwritePolicy.IGNORE:\n        return 0\n",
        "    if policy:\n        return 0\n",
        f"{_DAEMON}/test_overwritten.py"
        "::test_overwritten_object_with_policy_alert_is_counted_once_and_left_as_it_is[sqlite]",
    ),
    Break(
        "an old leader writes nothing",
        "watcher/store/leadership.py",
        "    if present != epoch or epoch == 0:\n",
        "    if epoch == 0:\n",
        f"{_STORE}/test_leadership.py::test_write_of_an_old_leader_is_refused_and_counted[postgres]",
    ),
    Break(
        "a listing that ignores its window is refused",
        "watcher/probe.py",
        "        if in_seconds and in_milliseconds:\n",
        "        if in_seconds and not in_seconds:\n",
        f"{_DAEMON}/test_probe.py::test_probe_of_a_server_that_ignores_windows_is_refused[sqlite]",
    ),
    Break(
        "nothing is concluded from a listing that is taken in another way than before",
        "watcher/duties.py",
        "            self.probed.pop(watch_id, None)\n",
        "",
        f"{_DAEMON}/test_probe.py"
        "::test_full_comparison_over_a_server_that_was_changed_meanwhile_is_refused_and_concludes_nothing[sqlite]",
    ),
    Break(
        "what polls that ended well did not bring is told",
        "watcher/source_check.py",
        "if polled_ms >= at_ms + margin_ms",
        "if polled_ms < 0",
        f"{_SCENARIOS}/test_stall.py"
        "::test_scenario_36_source_that_moves_under_a_server_whose_clock_stands_still_is_told[sqlite]",
    ),
    Break(
        "what the next poll may bring is no alarm",
        "watcher/source_check.py",
        "if polled_ms >= at_ms + margin_ms",
        "if polled_ms",
        f"{_SCENARIOS}/test_stall.py"
        "::test_look_at_a_source_that_is_polled_as_it_should_finds_nothing_ahead[sqlite]",
    ),
    Break(
        "a look at the source is made up to the present by our clock",
        "watcher/source_check.py",
        "min(mark_s + 1, recent_s)), now_s)",
        "min(mark_s + 1, recent_s)), mark_s)",
        f"{_SCENARIOS}/test_stall.py"
        "::test_scenario_36_source_that_moves_under_a_server_whose_clock_stands_still_is_told[sqlite]",
    ),
    Break(
        "own output below a watched prefix is no input",
        "watcher/poll.py",
        "        if self.own_output.match(row.file_name):\n",
        "        if not row.file_name:\n",
        f"{_SCENARIOS}/test_own_output.py"
        "::test_scenario_30_manifests_below_a_listed_bucket_are_passed_over_and_images_beside_them_are_not[sqlite]",
    ),
    Break(
        "images beside own output are input",
        "watcher/domain/own_output.py",
        "{key}{re.escape(f'.{sink.rules.format}')}",
        "{re.escape(below)}.*",
        f"{_SCENARIOS}/test_own_output.py"
        "::test_scenario_30_manifests_below_a_listed_bucket_are_passed_over_and_images_beside_them_are_not[sqlite]",
    ),
    Break(
        "a folder that the daemon itself writes is refused as input",
        "watcher/settings/watch.py",
        "elif path.parts[0] in _OWN_FOLDERS:",
        "elif not path.parts[0]:",
        "tests/unit/settings/test_watches.py::test_watch_whose_folder_holds_what_the_daemon_writes_is_refused",
    ),
    Break(
        "a store that somebody edited is found out: lost samples",
        "watcher/store/checks.py",
        "        joined.where(lost),\n",
        "        joined.where(lost, samples.c.id < 0),\n",
        "tests/unit/cli/test_check_store.py::test_row_that_a_hand_broke_is_named_with_what_is_wrong",
    ),
    Break(
        "a store that somebody edited is found out: a mark ahead of what was listed",
        "watcher/store/checks.py",
        "        watches.c.mark_s > newest_s, is_known.exists()\n",
        "        watches.c.mark_s < 0, is_known.exists()\n",
        "tests/unit/cli/test_check_store.py::test_row_that_a_hand_broke_is_named_with_what_is_wrong",
    ),
    Break(
        "a store that somebody edited is found out: counts",
        "watcher/store/checks.py",
        "off.having(n != n_kept)",
        "off.having(n < 0)",
        "tests/unit/cli/test_check_store.py::test_row_that_a_hand_broke_is_named_with_what_is_wrong",
    ),
    Break(
        "a statement that was changed is not proven",
        "watcher/domain/statements.py",
        "    if not any(hmac",
        "    if not by_id and not any(hmac",
        "tests/unit/domain/test_statements.py::test_chain_with_a_changed_count_is_refused_by_its_place",
    ),
    Break(
        "a statement that was left out is missed",
        "watcher/domain/statements.py",
        "        if statement.previous != previous:\n",
        "        if previous is None and statement.previous:\n",
        "tests/unit/domain/test_statements.py::test_chain_with_a_link_left_out_moved_or_repeated_is_refused",
    ),
    Break(
        "a comparison calls nothing vanished that came while it ran",
        "watcher/reconcile.py",
        "row.name not in listed and row.name not in later and found.was_to_be_listed(row)",
        "row.name not in listed and row.name not in later",
        f"{_DAEMON}/test_reconcile.py::test_what_polls_and_jobs_do_during_a_reconcile_is_no_fault[sqlite]",
    ),
    Break(
        "a comparison calls nothing unknown to the dataset that was done while it ran",
        "watcher/reconcile.py",
        "        if not n_absent:\n            return\n",
        "        if n_absent:\n            return\n",
        f"{_DAEMON}/test_reconcile.py::test_what_polls_and_jobs_do_during_a_reconcile_is_no_fault[sqlite]",
    ),
    Break(
        "a picture that was written again may be picked again",
        "watcher/jobs/sampling_tags.py",
        "BitMask.from_hex(last.bit_mask_data)) - again\n",
        "BitMask.from_hex(last.bit_mask_data))\n",
        f"{_DAEMON}/test_overwritten.py"
        "::test_picked_object_that_is_written_again_is_measured_picked_and_delivered_anew[sqlite]",
    ),
    Break(
        "a picture that was written again is measured again",
        "watcher/store/overwrites.py",
        "    session.execute(delete(sample_novelties).where(sample_novelties.c.sample_id == sample_id))\n",
        "",
        f"{_DAEMON}/test_overwritten.py"
        "::test_picked_object_that_is_written_again_is_measured_picked_and_delivered_anew[sqlite]",
    ),
    Break(
        "the temporary files of the living are not removed",
        "watcher/work_folders.py",
        "        _try_lock(handle)\n",
        "",
        "tests/unit/test_work_folders.py"
        "::test_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays",
    ),
    Break(
        "an old leader that wakes up beside a new one changes nothing",
        "watcher/store/leadership.py",
        "    if present != epoch or epoch == 0:\n",
        "    if epoch == 0:\n",
        f"{_SIMULATION}::test_two_daemons_of_which_leaders_freeze_and_wake_lose_and_double_nothing",
    ),
    Break(
        "a sink gets one delivery at a time, over all machines",
        "watcher/store/deliveries.py",
        "        _lock_sink(session, watch_id=found.watch_id, sink=found.sink)\n",
        "",
        "tests/unit/store/test_deliveries.py"
        "::test_two_claims_at_one_moment_give_a_sink_one_delivery[postgres]",
    ),
    Break(
        "requests a second are those of all processes together",
        "watcher/request_rate.py",
        "                server=server,\n                n=n,\n",
        "                server=str(os.getpid()),\n                n=n,\n",
        "tests/scale/test_rate.py"
        "::test_requests_of_a_daemon_and_a_command_keep_to_the_rate_and_are_shared_between_them[postgres]",
    ),
    Break(
        "requests a second are those of a daemon and the commands beside it",
        "watcher/request_rate.py",
        "handle = os.open(self._path, ",
        'handle = os.open(f"{self._path}{os.getpid()}", ',
        "tests/scale/test_rate.py"
        "::test_requests_of_a_daemon_and_a_command_keep_to_the_rate_and_are_shared_between_them[sqlite]",
    ),
    Break(
        "a place among the requests that was missed is forfeited",
        "watcher/lightly/throttle.py",
        "            if self._clock.monotonic_s() <= good_until_s:\n",
        "            if good_until_s:\n",
        "tests/unit/lightly/test_shared_throttle.py"
        "::test_place_of_a_process_that_slept_too_long_is_not_used_but_another_taken",
    ),
    Break(
        "a program below the floor of a schema refuses it",
        "watcher/database/schema.py",
        "    if present.floor in known:\n",
        "    if known:\n",
        "tests/migration/test_watcher_schema.py"
        "::test_schema_that_is_newer_is_accepted_from_its_floor_on_and_else_refused_with_the_ways_out[sqlite-check_schema]",
    ),
]


def run_test(root: Path, *tests: str) -> tuple[int, str]:
    """Runs tests over the package in a folder; returns pytest's exit code, and what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            cwd=root,
            # A source of the same second and length would count as compiled already.
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=_LIMIT_S * len(tests),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _HUNG, f"no end within {_LIMIT_S * len(tests)} s"
    return done.returncode, done.stdout


def copy_package(root: Path) -> None:
    """Copies what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, root / name)


def main() -> int:
    """Returns 0 only if every test is green without its break and red with it."""
    say = sys.stdout.write
    words = sys.argv[1:]
    breaks = [each for each in BREAKS if not words or any(word in each.rule for word in words)]
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        root = Path(folder)
        copy_package(root)
        code, said = run_test(root, *sorted({each.test for each in breaks}))
        if code:
            say(f"not green to begin with ({code}):\n{said[-3000:]}")
            return 1
        survivors = 0
        for each in breaks:
            path = root / each.path
            text = path.read_text(encoding="utf-8")
            begun_s = time.monotonic()
            path.write_text(text.replace(each.old, each.new), encoding="utf-8")
            try:
                code, _ = run_test(root, each.test)
            finally:
                path.write_text(text, encoding="utf-8")
            # 1: tests failed; anything else is no verdict.
            survivors += code != 1
            verdict = "red" if code == 1 else f"NOT RED ({code})"
            say(f"{verdict:8} {time.monotonic() - begun_s:5.1f} s  {each.rule}\n")
            sys.stdout.flush()
    say(f"{len(breaks) - survivors} of {len(breaks)} breaks were noticed\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

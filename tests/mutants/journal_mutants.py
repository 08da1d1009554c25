"""Mistakes with what outlives Redis: not on the disk, believed though damaged, put back wrongly, or not asked for."""

from __future__ import annotations

from mutant import mutant

_PUTBACK = "backends/test_putback.py::"

JOURNAL = (
    mutant(
        "a journal without fsync",
        "backends/journal_file.py",
        ("        os.fdatasync(self.descriptor)\n", ""),
        test="backends/test_journal.py::test_synced_returns_after_an_fsync_that_came_after_the_write",
    ),
    mutant(
        "a damaged line is believed",
        "backends/journal_file.py",
        ('if not body.endswith(b"\\n") or checksum != b"%08x" % zlib.crc32(body[:-1]):', "if not body.strip():"),
        test="backends/test_journal_folder.py::test_every_byte_of_a_line_counts",
    ),
    mutant(
        "what Redis was told is not kept",
        "backends/redis_shards.py",
        ("            self._journal.keep(shard, Entry(mark, _text(keys, effects)))\n", ""),
        test=f"{_PUTBACK}test_what_was_lost_is_put_back_as_it_was[0-True]",
    ),
    mutant(
        "another server is taken for the same",
        "backends/lua/shard.lua",
        ("meta[2] ~= server_run() or ", ""),
        test=f"{_PUTBACK}test_without_any_journal_a_restart_is_no_reason_to_close",
        shows="Failed: DID NOT RAISE",
    ),
    mutant(
        "a shard opens before all have handed in",
        "backends/lua/meet.lua",
        ("  elseif tonumber(at) + tonumber(ARGV[7]) > now then ready = false end\n", "  end\n"),
        test=f"{_PUTBACK}test_a_shard_is_refused_until_all_who_came_have_handed_in",
        shows="Failed: DID NOT RAISE",
    ),
    mutant(
        "commands of the ops are not put back",
        "services/recovery.py",
        (
            "            if shard == 0:\n                await self._shards.hand_in(",
            "            if shard < 0:\n                await self._shards.hand_in(",
        ),
        test=f"{_PUTBACK}test_commands_of_the_ops_are_put_back_once",
    ),
    mutant(
        "given without Redis, and not on the disk",
        "services/unchecked.py",
        ("            await self._journal.synced()\n", "            pass\n"),
        test="services/test_unchecked.py::test_nothing_is_given_before_it_is_fsynced",
    ),
)

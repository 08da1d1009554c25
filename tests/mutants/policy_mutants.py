"""Mistakes with tokens, rules and geo data: what a library reads into a text, and who is let in by not knowing."""

from __future__ import annotations

from mutant import mutant

POLICY = (
    mutant(
        "the signature is not looked at",
        "policy/tokens.py",
        ("if not key.verify(jws.signing_input, jws.signature):", "if not jws.signature:"),
        test="policy/test_tokens_forged.py::test_refused",
    ),
    mutant(
        "the token says by which algorithm it is signed",
        "policy/tokens.py",
        ('if header.get("alg") != key.alg:', 'if not header.get("alg"):'),
        test="policy/test_tokens_forged.py::test_refused",
    ),
    mutant(
        "an unknown kid gets any key",
        "policy/tokens.py",
        ("keys.get(kid) if isinstance(kid, str) else None", 'keys.get(str(kid)) or keys.get("hs")'),
        test="policy/test_tokens_forged.py::test_refused",
    ),
    mutant(
        "crit is passed over",
        "policy/tokens.py",
        ('frozenset({"crit", ', "frozenset({"),
        test="policy/test_tokens_forged.py::test_refused",
    ),
    mutant(
        "of two equal claims the last one counts",
        "policy/tokens.py",
        ("if len(members) != len(pairs):", "if len(members) > len(pairs):"),
        test="policy/test_tokens_forged.py::test_refused",
    ),
    mutant(
        "one token has several spellings",
        "policy/tokens.py",
        ("return decoded if _encode(decoded) == segment else None", "return decoded"),
        test="policy/test_tokens_forged.py::test_refused",
    ),
    mutant(
        "NaN is a number",
        "policy/tokens.py",
        (", parse_constant=_refuse_constant)", ")"),
        test="policy/test_tokens_forged.py::test_refused",
    ),
    mutant(
        "a token may be as long as it likes",
        "policy/tokens.py",
        ("    if len(token) > TOKEN_MAX:\n        return _malformed", "    if not token:\n        return _malformed"),
        test="policy/test_tokens_forged.py::test_refused",
    ),
    mutant(
        "a token of tomorrow is good today",
        "policy/tokens.py",
        ("> now + LEEWAY:", "> now + LEEWAY + 10**6:"),
        test="policy/test_tokens.py::test_a_token_from_the_future_is_not_yet_good",
    ),
    mutant(
        "true is a time",
        "policy/claims.py",
        ("if type(value) is not int or", "if not isinstance(value, int) or"),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "a token without exp is good for ever",
        "policy/claims.py",
        ('_require(payload, "iss", "aud", "exp", ', '_require(payload, "iss", "aud", '),
        ('_whole(payload["exp"], ', '_whole(payload.get("exp", TIME_MAX), '),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "a token for others is good here, too",
        "policy/claims.py",
        ('payload["aud"] not in (AUDIENCE, [AUDIENCE])', 'AUDIENCE not in str(payload["aud"])'),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "another shop's token is good here",
        "policy/claims.py",
        ('if payload["iss"] != issuer:', 'if not payload["iss"]:'),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "a limit that is not known is no limit",
        "policy/claims.py",
        ("or not value.keys() <= BY_NAME.keys():", "or not value:"),
        ("in value.items():", "in [(name, value[name]) for name in value if name in BY_NAME]:"),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "an empty list of networks means everybody",
        "policy/claims.py",
        ("if not isinstance(value, list) or not value:", "if not isinstance(value, list):"),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "a key may climb",
        "policy/claims.py",
        ('    raise _Wrong("a file\'s key has a . or .. segment")', "    return value"),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "a key may climb where a store decodes it",
        "policy/claims.py",
        ("decoded = unquote(layer)", "decoded = layer"),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "an external file may be plain http",
        "policy/claims.py",
        ('r"https://[A-Za-z0-9](', 'r"https?://[A-Za-z0-9]('),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "zero downloads is a limit",
        "policy/limits.py",
        ("not 1 <= number <= LIMIT_MAX:", "not 0 <= number <= LIMIT_MAX:"),
        test="policy/test_limits.py::test_refused",
    ),
    mutant(
        "true is a limit of one",
        "policy/limits.py",
        ("if type(number) is not int or", "if not isinstance(number, int) or"),
        test="policy/test_limits.py::test_refused",
    ),
    mutant(
        "a short secret signs",
        "policy/keys.py",
        ("    if len(material) < SECRET_BYTES[alg]:", "    if not material:"),
        test="policy/test_tokens_keys.py::test_a_wrong_key_is_refused_with_what_would_be_right",
    ),
    mutant(
        "a key's secret is in its repr",
        "policy/keys.py",
        ("_material: bytes | PublicKey = field(repr=False)", "_material: bytes | PublicKey"),
        test="policy/test_tokens_keys.py::test_no_material_in_reprs",
    ),
    mutant(
        "a revoked link is served",
        "policy/decide.py",
        ("    if policy.standing.is_revoked(claims):", "    if claims is None:"),
        test="policy/test_decide.py::test_revoking_comes_before_everything",
    ),
    mutant(
        "a token's own networks are for show",
        "policy/decide.py",
        ("if claims.ip and not any(", "if claims.ip and not all(True or "),
        test="policy/test_decide.py::test_a_token_by_itself_is_denied",
    ),
    mutant(
        "a plan that the rules file has not is no plan",
        "policy/decide.py",
        ("return plan or Deny(", "return plan or Plan(name) or Deny("),
        test="policy/test_decide.py::test_a_token_by_itself_is_denied",
    ),
    mutant(
        "an external file may lie anywhere",
        "policy/decide.py",
        ("not in hosts:", "in (None, hosts):"),
        test="policy/test_decide.py::test_an_external_file_needs_its_host_in_the_settings",
    ),
    mutant(
        "an extension shortens a link",
        "policy/decide.py",
        ("else max(ends, extended)", "else extended"),
        test="policy/test_decide.py::test_expiry",
    ),
    mutant(
        "a token loosens its plan",
        "policy/model.py",
        ("merged[name] = min(value, merged.get(name, value))", "merged[name] = value"),
        test="policy/test_decide.py::test_a_link_and_a_rule_tighten_the_plan_and_cannot_loosen_it",
    ),
    mutant(
        "two shops' tokens of one id share a counter",
        "policy/model.py",
        ("{self.issuer}", ""),
        test="policy/test_tokens.py::test_what_shops_have_in_common_shares_no_counter",
    ),
    mutant(
        "a revocation of an order that comes late undoes a later one",
        "policy/standing.py",
        ("max(command.time, self._revoked_orders.get(command.order_id, 0))", "command.time"),
        test="policy/test_standing.py::test_an_order_stays_revoked_until_the_latest_time",
    ),
    mutant(
        "a command of a later version is taken for one of this",
        "policy/standing.py",
        ('    if fields.get("v") != VERSION:', '    if not fields.get("v"):'),
        test="policy/test_standing.py::test_what_is_no_order_is_not_read",
    ),
    mutant(
        "what no rule decides is allowed",
        "policy/ruleset.py",
        ("return Verdict(self.otherwise, OTHERWISE", "return Verdict(True, OTHERWISE"),
        test="policy/test_ruleset.py::test_otherwise_decides_what_no_rule_does",
    ),
    mutant(
        "a rule that only observes refuses",
        "policy/ruleset.py",
        ("            if rule.observe:\n", "            if rule.observe and rule.then == 'limit':\n"),
        test="policy/test_ruleset.py::test_the_first_allow_or_deny_decides_and_the_rest_adds_up_before_it",
    ),
    mutant(
        "hours over midnight belong to the day they end on",
        "policy/conditions/times.py",
        ("(day - 1) % 7 in self.days", "day in self.days"),
        test="policy/test_conditions.py::test_times",
    ),
    mutant(
        "an unknown country is none of those that are not meant",
        "policy/conditions/base.py",
        ("return fact in self.values", "return fact in {None, *self.values}"),
        test="policy/test_conditions.py::test_what_geo_data_do_not_know_is_unknown_and_nothing_else",
    ),
    mutant(
        "a network of no known type is unknown",
        "policy/conditions/places.py",
        ("return None in self.types if fact is None", "return None in self.types if not fact"),
        test="policy/test_conditions.py::test_a_network_that_is_known_to_be_none_of_the_types_is_not_unknown",
    ),
    mutant(
        "a condition without a value means everybody",
        "policy/conditions/base.py",
        (
            '                self.wrong(child, join(key, name), "has no value; give it one or remove the line")\n',
            "                continue\n",
        ),
        test="policy/test_conditions.py::test_what_is_wrong_and_what_would_be_right",
    ),
    mutant(
        "an empty list in a condition is passed over",
        "policy/conditions/base.py",
        (
            '                self.wrong(node, key, "is an empty list; give it a value or remove the line")\n',
            "                return\n",
        ),
        test="policy/test_conditions.py::test_what_is_wrong_and_what_would_be_right",
    ),
    mutant(
        "an empty when: means everybody",
        "policy/conditions/base.py",
        ("        elif not node.value:\n", "        elif node.value is None:\n"),
        test="policy/test_conditions.py::test_what_is_wrong_and_what_would_be_right",
    ),
    mutant(
        "a star in a path crosses folders",
        "policy/globs.py",
        ('_Wild.SEGMENT if word == "*" else', "_Wild.ANY if word else"),
        test="policy/test_globs.py::test_paths",
    ),
    mutant(
        "NO is false",
        "yaml_file.py",
        (
            "else self.shown(event.value)\n",
            (
                "else self.shown(event.value)\n"
                '            text = {"NO": "false", "no": "false", "yes": "true", "on": "true"}.get(text, text)\n'
            ),
        ),
        test="policy/test_conditions.py::test_a_word_is_a_word_whatever_other_readers_of_yaml_make_of_it",
    ),
    mutant(
        "of two equal keys the last one counts",
        "yaml_file.py",
        ("            elif name.value in pairs:\n", "            elif name.value in pairs and not name.value:\n"),
        test="backends/test_rules_file.py::test_what_editors_and_accidents_make_of_a_file",
    ),
    mutant(
        "aliases expand without end",
        "yaml_file.py",
        ("if self.aliases > self.bounds.aliases:", "if self.aliases < 0:"),
        test="test_settings.py::test_files_that_are_none",
    ),
    mutant(
        "geo databases are opened where they lie",
        "backends/maxmind.py",
        ("return Reader(copy.path, mode=MODE_MMAP_EXT)", "return Reader(str(path), mode=MODE_MMAP_EXT)"),
        ("    reader = _reader(copy)\n", "    reader = _reader(copy, path)\n"),
        ("def _reader(copy: MemoryFile | io.BytesIO) ->", "def _reader(copy: MemoryFile | io.BytesIO, path: Path) ->"),
        test="backends/test_maxmind.py::test_a_file_overwritten_and_truncated_under_load_changes_no_answer",
    ),
    mutant(
        "a geo database is not tried before it is used",
        "backends/maxmind.py",
        ("        database.probe()\n", ""),
        test="backends/test_maxmind.py::test_damage_far_from_the_beginning_is_found_at_load",
    ),
    mutant(
        "where a geo database is broken, nothing is known",
        "backends/maxmind.py",
        (
            '            raise GeoDown(f"geo',
            '            return _NOWHERE\n            raise GeoDown(f"geo',
        ),
        test="backends/test_maxmind.py::test_what_the_probe_has_missed_breaks_the_look_up_and_is_never_guessed",
    ),
    mutant(
        "a mapped address is nowhere",
        "backends/maxmind.py",
        ("            address = address.ipv4_mapped\n", "            pass\n"),
        test="backends/test_maxmind.py::test_an_ipv4_address_written_as_ipv6_is_that_address",
    ),
    mutant(
        "a flag of the geo data that is no boolean is false",
        "backends/maxmind.py",
        ("if not all(isinstance(flag, bool) for _, flag in flags):", "if not flags:"),
        test="backends/test_maxmind.py::test_a_value_that_is_none_is_found_at_load",
    ),
    mutant(
        "broken rules end those that are in force",
        "services/reloading.py",
        (
            "        fresh = await asyncio.to_thread(self._read_unchanging)\n        before, ",
            (
                "        before, self._current = self.current, None\n"
                "        fresh = await asyncio.to_thread(self._read_unchanging)\n"
                "        self._current = before\n"
                "        before, "
            ),
        ),
        test="services/test_reloading.py::test_the_last_good_one_stays_loudly",
        shows="LookupError",
    ),
    mutant(
        "half of one file and half of the next come into force",
        "services/reloading.py",
        (
            "            if self._fingerprint() == self._seen:\n                return fresh\n",
            "            return fresh\n",
        ),
        test="services/test_reloading.py::test_half_of_one_and_half_of_the_next_is_never_in_force",
    ),
    mutant(
        "a swap of the folder behind a link goes unseen",
        "backends/file_signature.py",
        ("found = path.stat()", "found = path.lstat()"),
        test="backends/test_rules_file.py::test_the_fingerprint_sees_a_folder_swapped_behind_a_link",
    ),
    mutant(
        "a public key signs as a secret",
        "policy/keys.py",
        ("material: bytes = algorithm.prepare_key(secret.encode())", "material: bytes = secret.encode()"),
        test="policy/test_tokens_keys.py::test_a_wrong_key_is_refused_with_what_would_be_right",
    ),
    mutant(
        "a revoked order takes links along that were made after it",
        "policy/standing.py",
        ("return claims.issued_at is None or claims.issued_at <= time", "return True"),
        test="policy/test_standing.py::test_revoked",
    ),
    mutant(
        "a misspelt key of a rule is passed over",
        "policy/tree_reader.py",
        (
            "not in known:\n                self.mistakes.add(child.named, join(key, name), unknown(what",
            "is known:\n                self.mistakes.add(child.named, join(key, name), unknown(what",
        ),
        test="policy/test_ruleset.py::test_what_is_wrong_and_what_would_be_right",
    ),
    mutant(
        "a condition that nobody knows is passed over",
        "policy/conditions/base.py",
        ('self.mistakes.add(child.named, join(key, name), unknown("condition", name, self.conditions))', "continue"),
        test="policy/test_conditions.py::test_what_is_wrong_and_what_would_be_right",
    ),
    mutant(
        "a rule may ask a geo database that is not there",
        "policy/conditions/base.py",
        ("if self.databases is not None and condition.needs not in self.databases:", "if self.databases is condition:"),
        test="policy/test_conditions.py::test_a_condition_says_which_database_it_asks",
        shows="ValueError",
    ),
    mutant(
        "rules with other lists have the same version",
        "backends/watched_text.py",
        ("        self._hash.update(", "        hashlib.sha256().update("),
        test="backends/test_rules_file.py::test_the_version_is_the_hash_of_everything_that_was_read",
    ),
    mutant(
        "a YAML file may hold any number of values",
        "yaml_file.py",
        ("        if self.nodes > self.bounds.nodes:\n", "        if self.nodes < 0:\n"),
        test="test_yaml_file.py::test_a_file_is_bounded_before_it_is_built",
    ),
    mutant(
        "a YAML file may be nested without end",
        "yaml_file.py",
        ("            if len(self.open) >= self.bounds.depth:\n", "            if not self.bounds:\n"),
        test="test_yaml_file.py::test_a_file_is_bounded_before_it_is_built",
    ),
)

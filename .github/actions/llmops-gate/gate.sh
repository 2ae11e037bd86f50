#!/usr/bin/env bash
# What the action runs: check the files, judge what the change affects, and say what a merge may do.
# Outputs: exit-code, what llmops ended with; merge, what the job ends with; store, whether it has to be kept.
set -uo pipefail

say() { printf '::%s title=llmops gate::%s\n' "$1" "$2"; } # only words of ours, never those of a file or model
digest() { cat .llmops/store.db* 2>/dev/null | sha256sum; }

mkdir -p "$REPORTS"

# A checkout knows the base branch as origin/NAME alone, and `baseline: git:NAME` asks for NAME.
base="refs/remotes/origin/$BASE_BRANCH"
if [ -n "$BASE_BRANCH" ] && ! git show-ref --verify --quiet "refs/heads/$BASE_BRANCH" \
  && commit=$(git rev-parse --verify --quiet "$base^{commit}"); then
  git update-ref "refs/heads/$BASE_BRANCH" "$commit"
fi

whole='import sqlite3; assert sqlite3.connect(".llmops/store.db").execute("pragma quick_check").fetchone() == ("ok",)'
if [ -f .llmops/store.db ] && ! python3 -I -c "$whole" 2>/dev/null; then
  say warning "The store from the cache is damaged and was left out: what it held is paid for again."
  rm -rf .llmops
fi

options=(--annotations)
options+=(--junit "$REPORTS/junit.xml" --markdown "$REPORTS/comment.md" --html "$REPORTS/report.html")
if [ -n "$CHANGED_SINCE" ]; then
  if git rev-parse --verify --quiet --end-of-options "$CHANGED_SINCE^{commit}" >/dev/null; then
    options+=(--changed-since "$CHANGED_SINCE")
  else # a force-push, a deleted base or a shallow clone: judging too much is safe, judging too little is not
    say notice "The revision to compare with is not in this clone: every experiment is judged (fetch-depth: 0 helps)."
  fi
fi
if [ "$SEQUENTIAL" = true ]; then options+=(--sequential); fi
if [ "$FORK" = true ] || [ "$REPLAY" = only ]; then options+=(--replay only); fi
read -r -d '' -a experiments <<<"$EXPERIMENTS"

before=$(digest)
llmops check
code=$?
if [ "$code" -eq 0 ]; then
  llmops gate "${options[@]}" -- "${experiments[@]}"
  code=$?
fi

merge=$code
if [ "$FORK" = true ]; then
  case $code in
    3 | 4 | 6) # no recording, no key, or no answer: nothing to hold against whoever sent the change
      say warning "NOT JUDGED: this fork holds no key and its recordings do not decide it. A maintainer's run has to."
      merge=0
      ;;
    0) say notice "Judged by recordings that came with the change; a maintainer's run confirms it." ;;
  esac
fi
{
  echo "exit-code=$code"
  echo "merge=$merge"
  if [ "$before" = "$(digest)" ]; then echo "store=unchanged"; else echo "store=changed"; fi
} >>"$GITHUB_OUTPUT"

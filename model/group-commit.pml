/* How a group is committed: terms, votes, the decision, and the ways out. `make model` checks it with spin; the words are
 * those of docs/reliability.md, the reasons those of docs/decisions/0004-groups-decide-at-one-home.md.
 *
 * Who takes part: two coordinators, both of which may be at work at any time; the group home; two members, which are the homes
 * of the copies of the group's volumes. Two group points are to be moved, 1 and then 2.
 *
 * What is abstracted, each time to more behaviours than there are:
 * - The network. A request is a bit in a set of requests ever made, which are named by their term. Whoever it is for may act on
 *   it at any later time, any number of times, or never: that is delay, reordering, duplication and loss. A request that would
 *   be refused changes nothing and is left out. An answer is a bit as well, or is never seen: every wait may be given up.
 * - Time. A lease may end at any moment, so a term may be taken away, or another one granted, at any moment.
 * - Crashes. Only what is in memory is lost. A coordinator has all of its state in memory, so a crash is to give up; it may do so
 *   at every step, as long as there are terms. The home has nothing in memory that counts, but it neither hears nor answers while it
 *   is down. A member loses its open staging session. Home and members crash CRASHES times in all, at any moment.
 * - Claim, plan and freeze at a member are one step, and so are sealing its staging and recording its vote.
 * - Nonces. A term is known by its serial number, which stands for epoch and nonce; epochs are kept beside it, and they are
 *   what is compared.
 *
 * What is checked:
 * - I3: a member's points only go forward.
 * - I5: nothing is changed under a term that was superseded or taken away, at that member or at the home.
 * - Agreement: a member that gives up its vote does so for a point that is not decided, one that commits does so for one that
 *   is, with the very plan it voted for; when the home decides, all have voted under that very term.
 * - No state without exit: when nothing can happen any more, no term is live, no member is bound by a vote, a decided point
 *   is at all members, and the coordinators are done (or had no terms left, of which the model has TERMS).
 * - Liveness, with LTL and weak fairness: a member that has voted is decided. The home is down for a while at most.
 *
 * Mutants, each of which must be caught (-D): EQUAL_EPOCH, VOTED_ABORTS, COMMIT_EARLY, LATE_ANSWER, OLD_TERM_COMMITS, NO_TAKE_AWAY;
 * and NOTHING_ARRIVES, the claim that no run brings both points to both members, which must be refuted.
 */

#ifndef TERMS
#define TERMS 3
#endif
#ifndef POINTS
#define POINTS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif

#define bit_(s) (1 << (s))
#define has(set, s) (((set) >> (s)) & 1)
#define put(set, s) set = (set) | bit_(s)
#define without(set, s) ((set) & ~bit_(s))
/* An answer: it is lost unless the coordinator still waits for it. */
#define tell(set, s) set = (isHeard(s) -> (set) | bit_(s) : (set))

/* ---- terms, by serial number from 1 on; 0 is none ---- */
byte serials;                /* granted so far */
byte epochOf[TERMS + 1];
byte pointFor[TERMS + 1];    /* the one group point that may be committed under it */

/* ---- requests ever made, and answers ---- */
byte wanted[2];              /* claimGroup of a coordinator: for which point; 0 once it is granted */
byte grantedTo[2];           /* the newest grant it has not seen yet */
bool sawEnd[2];              /* the report in that grant: this point, or a later one, is committed */
byte current[2];             /* the term a coordinator works under */
byte joinAsked, prepareAsked;                   /* each is for both members */
byte joined[2], prepared[2];                    /* answers of a member */
byte commitAsked, commitDone, abortAsked, abortDone;
byte saysCommitted[2], saysAborted[2];          /* the home's answers to a member, by the term of the vote asked about */

/* ---- the group home, durable ---- */
byte homeEpoch, homeTerm;
bool homeLive;
byte recordTerm[POINTS + 1]; /* the commit record: under which term; 0 is none */
bool homeDown;

/* ---- the members, durable but for the session ---- */
byte epoch[2], term[2], vote[2], point[2];
bool live[2], session[2];

byte crashes = CRASHES;
byte ended;                  /* coordinators that are done */

#define max(a, b) ((a) > (b) -> (a) : (b))

/* ---- a coordinator ---- */

#define s current[c]
#define isHeard(t) (current[0] == (t) || current[1] == (t))

/* It gives its term up; answers to it will not be seen by anybody. */
inline forget(c) {
  joined[0] = without(joined[0], s); joined[1] = without(joined[1], s);
  prepared[0] = without(prepared[0], s); prepared[1] = without(prepared[1], s);
  commitDone = without(commitDone, s); abortDone = without(abortDone, s);
  s = 0
}

proctype Coordinator(byte c) {
  byte wish = 1;
again:
  atomic {
    forget(c);
    if
    :: serials == TERMS -> goto done
    :: else -> wanted[c] = wish
    fi
  }
  if
  :: atomic { grantedTo[c] != 0 -> s = grantedTo[c]; grantedTo[c] = 0;
      if
      :: sawEnd[c] -> sawEnd[c] = 0; goto next     /* finish forward: the members ask by themselves */
      :: !sawEnd[c] -> put(joinAsked, s)
      :: !sawEnd[c] -> put(abortAsked, s); goto resolve  /* attempts are spent */
      fi }
  :: atomic { serials == TERMS && grantedTo[c] == 0 -> wanted[c] = 0; goto done }
  fi;
  if
  :: atomic { has(joined[0], s) && has(joined[1], s) -> put(prepareAsked, s) }
  :: goto again
  fi;
  if
#ifdef COMMIT_EARLY
  :: atomic { has(prepared[0], s) || has(prepared[1], s) -> put(commitAsked, s) }
#else
  :: atomic { has(prepared[0], s) && has(prepared[1], s) -> put(commitAsked, s) }
#endif
  :: goto again
  fi;
  if
  :: has(commitDone, s) -> goto next
  :: goto again
  fi;
resolve:
  if
  :: has(abortDone, s) -> goto next
  :: goto again
  fi;
next:
  atomic {
    wish++;
    if
    :: wish <= POINTS -> goto again
    :: else -> goto done
    fi
  }
done:
  atomic { forget(c); wish = 0; ended++ }
}
#undef s

/* ---- the group home ---- */

inline grant(c) {
  serials++;
#ifdef EQUAL_EPOCH
  homeEpoch = max(1, max(homeEpoch, max(epoch[0], epoch[1])));
#else
  homeEpoch = max(homeEpoch, max(epoch[0], epoch[1])) + 1;
#endif
  epochOf[serials] = homeEpoch;
  pointFor[serials] = wanted[c];
  homeTerm = serials;
  homeLive = true;
  grantedTo[c] = serials;
  sawEnd[c] = recordTerm[wanted[c]] != 0 || recordTerm[POINTS] != 0;
  wanted[c] = 0
}

inline commit(s) {
  assert(homeLive && s == homeTerm);             /* I5 */
  assert(vote[0] == s && vote[1] == s);          /* agreement: all have voted, under this term */
  recordTerm[pointFor[s]] = s;
  tell(commitDone, s)
}

inline endHomeTerm() { homeLive = false }

/* What the home says about the point that is voted for; while it is pending, it says nothing. */
#define isPending(v) (homeLive && pointFor[homeTerm] == pointFor[v])
#define isRecorded(v) (recordTerm[pointFor[v]] != 0)
#define isUnanswered(m) (!has(saysCommitted[m], vote[m]) && !has(saysAborted[m], vote[m]))
#define canAnswer(m) (vote[m] != 0 && isUnanswered(m) && (isRecorded(vote[m]) || !isPending(vote[m])))

inline answer(m) {
  if
  :: isRecorded(vote[m]) -> put(saysCommitted[m], vote[m])
  :: else -> put(saysAborted[m], vote[m])
  fi
}

#define canCommit(s) (has(commitAsked, s) && recordTerm[pointFor[s]] == 0)

proctype Home() {
end:
  do
  :: atomic { !homeDown && wanted[0] != 0 && serials < TERMS -> grant(0) }
  /* The coordinators are alike, so nothing is lost by giving the first term to the first of them. */
  :: atomic { !homeDown && wanted[1] != 0 && serials < TERMS && serials > 0 -> grant(1) }
#ifdef OLD_TERM_COMMITS
  :: atomic { !homeDown && canCommit(1) -> commit(1) }
#endif
  :: atomic { !homeDown && homeLive && canCommit(homeTerm) -> commit(homeTerm) }
  :: atomic { !homeDown && homeLive && has(abortAsked, homeTerm) -> endHomeTerm(); tell(abortDone, homeTerm) }
#ifndef NO_TAKE_AWAY
  :: atomic { !homeDown && homeLive -> endHomeTerm(); homeEpoch++ }
#endif
  :: atomic { !homeDown && canAnswer(0) -> answer(0) }
  :: atomic { !homeDown && canAnswer(1) -> answer(1) }
  :: atomic { !homeDown && crashes > 0 -> crashes--; homeDown = true }
  :: atomic { homeDown -> homeDown = false }
  od
}

/* ---- a member ---- */

#ifdef LATE_ANSWER
/* An answer is applied to whatever is voted for when it arrives. */
#define hears(set, m) (vote[m] != 0 && set[m] != 0)
inline setVote(m, s) { vote[m] = s }
#else
#define hears(set, m) (vote[m] != 0 && has(set[m], vote[m]))
/* Answers about an earlier vote change nothing any more. */
inline setVote(m, s) { vote[m] = s; saysCommitted[m] = 0; saysAborted[m] = 0 }
#endif

#ifdef EQUAL_EPOCH
#define isNew(m, s) (epochOf[s] >= epoch[m] && term[m] != s)
#else
#define isNew(m, s) (epochOf[s] > epoch[m])
#endif
/* The same term again opens a session that was lost in a crash; but no plan is taken under the term of the vote. */
#define isAgain(m, s) (live[m] && term[m] == s && !session[m] && vote[m] != s)
/* A vote for another point is to be decided first. */
#define isFree(m, s) (vote[m] == 0 || pointFor[vote[m]] == pointFor[s])
#define canJoin(m, s) (has(joinAsked, s) && (isNew(m, s) || isAgain(m, s)) && isFree(m, s))

inline join(m, s) {
  assert(s >= term[m]);                          /* I5: terms are numbered in the order in which they were granted */
  epoch[m] = epochOf[s];
  term[m] = s;
  live[m] = true;
  if
  :: point[m] >= pointFor[s] -> session[m] = false  /* its report says so, and the coordinator gives up */
  :: else ->
    session[m] = true;
    tell(joined[m], s);
    /* Another plan than the one voted for voids the vote; the same one keeps it until it is prepared anew. */
    if
    :: vote[m] != 0 -> assert(!isRecorded(vote[m])); setVote(m, 0)
    :: true
    fi
  fi
}

#define canPrepare(m, s) (has(prepareAsked, s) && live[m] && term[m] == s && session[m] && vote[m] != s)

inline prepare(m, s) { setVote(m, s); tell(prepared[m], s) }

inline apply(m) {
  assert(recordTerm[pointFor[vote[m]]] == vote[m]);  /* agreement: it is decided, for the very plan that was voted for */
  assert(pointFor[vote[m]] > point[m]);              /* I3 */
  point[m] = pointFor[vote[m]];
  setVote(m, 0); session[m] = false; live[m] = false
}

inline giveUpVote(m) {
  assert(!isRecorded(vote[m]));                      /* agreement: nobody has committed it, and nobody will */
  /* A later term than the vote's had no part in it, and goes on. */
  if
  :: live[m] && term[m] == vote[m] -> session[m] = false; live[m] = false; epoch[m]++
  :: else
  fi;
  setVote(m, 0)
}

#define STEPS(s) \
  :: atomic { canJoin(m, s) -> join(m, s) } \
  :: atomic { canPrepare(m, s) -> prepare(m, s) }

proctype Member(byte m) {
end:
  do
  STEPS(1)
  STEPS(2)
#if TERMS > 2
  STEPS(3)
#endif
#if TERMS > 3
  STEPS(4)
#endif
  :: atomic { hears(saysCommitted, m) -> apply(m) }
  :: atomic { hears(saysAborted, m) -> giveUpVote(m) }
#ifdef VOTED_ABORTS
  :: atomic { live[m] && vote[m] != 0 -> giveUpVote(m) }
#endif
  /* The coordinator is silent past its lease: the member takes the term away under an epoch of its own, and thaws. */
  :: atomic { live[m] && vote[m] == 0 -> live[m] = false; session[m] = false; epoch[m]++ }
  :: atomic { crashes > 0 && session[m] -> crashes--; session[m] = false }
  od
}

/* ---- the end: when nothing else can happen ---- */

#define isEverywhere(p) (recordTerm[p] == 0 || (point[0] >= p && point[1] >= p))

proctype Watch() {
end:
  timeout -> atomic {
    assert(ended == 2);
    assert(!homeLive && !live[0] && !live[1]);
    assert(vote[0] == 0 && vote[1] == 0);
    assert(isEverywhere(1) && isEverywhere(POINTS));
#ifdef NOTHING_ARRIVES
    assert(point[0] < POINTS || recordTerm[1] == 0);
#endif
    assert(point[0] == point[1])
  }
}

init {
  atomic { run Coordinator(0); run Coordinator(1); run Home(); run Member(0); run Member(1); run Watch() }
}

ltl decided { [] (vote[0] != 0 -> <> (vote[0] == 0)) }

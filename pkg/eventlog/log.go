package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/mutant"
)

// Errors of an append. ErrConflict means that another writer was first; ErrUnknown that the outcome could not be found out in time.
var (
	ErrConflict = errors.New("eventlog: another writer was first")
	ErrUnknown  = errors.New("eventlog: the outcome of a write is not known yet")
	ErrNotFound = errors.New("eventlog: nothing on this subject")
)

// JetStream's own codes (nats-server errors.json).
const (
	codeWrongLastSequence = 10071
	codeWriteInFlight     = 10164
	codeIDInFlight        = 10158 // a message of this id is not stored yet
	codeNoMessage         = 10037
	codeStreamNotFound    = 10059
	codeNotAvailable      = 10008 // nobody leads just now
	codeNotLeader         = 10009
	codeNoRoom            = 10047
	codeConsumerStore     = 10012
)

// tryFor is how long one publish waits for its acknowledgement before it is sent again with the same id and expectation.
// A leader killed on three servers is away for 4 to 7 s (mechanisms 3).
const tryFor = 2 * time.Second

// Entry is one message of a stream.
type Entry struct {
	Subject  string
	Sequence uint64
	Header   nats.Header
	Data     []byte
	Time     time.Time
}

// Log writes and reads one stream.
type Log struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	name   string
	marks  func(stream string, sequence uint64)
	led    atomic.Uint64 // up to where the leader was seen to have the stream
}

// OpenLog opens a stream that `init` made; it never makes one (a lost record is not replaced by an empty one).
func OpenLog(ctx context.Context, nc *nats.Conn, stream string) (*Log, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("eventlog: %w", err)
	}
	st, err := js.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("eventlog: stream %s is missing; `countersign init` makes it on an empty server. If it was there before, restore it instead", stream)
	}
	if err != nil {
		return nil, fmt.Errorf("eventlog: open %s: %w", stream, err)
	}
	return &Log{nc: nc, js: js, stream: st, name: stream, marks: func(string, uint64) {}}, nil
}

// Name returns the stream's name.
func (l *Log) Name() string { return l.name }

// Stream returns the stream itself.
func (l *Log) Stream() jetstream.Stream { return l.stream }

// JetStream returns the client's view of the server.
func (l *Log) JetStream() jetstream.JetStream { return l.js }

// MarkWith has every acknowledged sequence told to f, which keeps the high-water mark.
func (l *Log) MarkWith(f func(stream string, sequence uint64)) { l.marks = f }

// Append publishes a message that is to be the next of its subject after sequence last (0: the first).
//
// After nil the message is stored, once. After ErrConflict it is not and will not be. An outcome that a timeout hid is found out
// by publishing again with the same id and expectation, and by reading what follows last from the leader: the server checks the
// expectation before the id, so a retry of a stored message looks like a conflict (mechanisms 3). ErrUnknown only when ctx ends first.
func (l *Log) Append(ctx context.Context, msg *nats.Msg, id string, last uint64) (uint64, error) {
	crash.Point("append.before")
	expect := jetstream.WithExpectLastSequencePerSubject(last)
	if mutant.NoExpectedSequence {
		expect = jetstream.WithRetryAttempts(0)
	}
	if mutant.AnsweredFirst {
		return last + 1, l.nc.PublishMsg(msg)
	}
	for {
		try, cancel := context.WithTimeout(ctx, tryFor)
		ack, err := l.js.PublishMsg(try, msg, jetstream.WithMsgID(id), expect, jetstream.WithRetryAttempts(0))
		cancel()
		if err == nil {
			crash.Point("append.after")
			l.saw(ack.Sequence)
			l.marks(l.name, ack.Sequence)
			return ack.Sequence, nil
		}
		var api *jetstream.APIError
		switch {
		case errors.As(err, &api) && (api.ErrorCode == codeWrongLastSequence || api.ErrorCode == codeWriteInFlight):
			seq, found, err := l.settle(ctx, msg.Subject, id, last)
			if err == nil && (found || api.ErrorCode == codeWrongLastSequence) {
				if !found {
					return 0, ErrConflict
				}
				l.marks(l.name, seq)
				return seq, nil
			}
		case errors.As(err, &api) && api.ErrorCode == codeIDInFlight:
			// An earlier try of ours: the servers have not agreed on it yet.
		case errors.As(err, &api) && !leaderless(err):
			return 0, fmt.Errorf("eventlog: %s refused a write: %w", l.name, err)
		}
		if err := pause(ctx, 5*time.Millisecond, 20*time.Millisecond); err != nil {
			return 0, ErrUnknown
		}
	}
}

// settle reads from the leader the subject's first message after last: ours means stored, another's means lost the race.
// Neither (a write still in flight) means that the question stays open.
func (l *Log) settle(ctx context.Context, subject, id string, last uint64) (seq uint64, ours bool, err error) {
	next, err := l.LeaderNext(ctx, subject, last+1)
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return next.Sequence, next.Header.Get(nats.MsgIdHdr) == id, nil
}

func pause(ctx context.Context, least, most time.Duration) error {
	t := time.NewTimer(least + rand.N(most-least)) //nolint:gosec // jitter, not a secret
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Last returns the newest message of a subject, from any replica: up to a moment old. ErrNotFound when there is none.
func (l *Log) Last(ctx context.Context, subject string) (Entry, error) {
	m, err := ask(ctx, func(try context.Context) (*jetstream.RawStreamMsg, error) {
		return l.stream.GetLastMsgForSubject(try, subject)
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Entry{}, ErrNotFound
	}
	if err != nil {
		return Entry{}, fmt.Errorf("eventlog: read %s: %w", l.name, err)
	}
	return Entry{Subject: m.Subject, Sequence: m.Sequence, Header: m.Header, Data: m.Data, Time: m.Time}, nil
}

// LeaderLast returns the newest message of a subject as the leader has it. ErrNotFound when there is none.
func (l *Log) LeaderLast(ctx context.Context, subject string) (Entry, error) {
	return l.leaderGet(ctx, map[string]any{"last_by_subj": subject})
}

// LeaderNext returns the first message of a subject from a sequence on, as the leader has it. ErrNotFound when there is none.
func (l *Log) LeaderNext(ctx context.Context, subject string, from uint64) (Entry, error) {
	return l.leaderGet(ctx, map[string]any{"seq": from, "next_by_subj": subject})
}

// leaderless tells whether an error means that nobody led a stream at that moment: a server is gone, and another will.
func leaderless(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrNoResponders) || errors.As(err, &api) && (api.ErrorCode == codeNotAvailable || api.ErrorCode == codeNotLeader)
}

// ask puts a question that may be put again, until ctx ends: an answer that was lost when the server went away never comes, however long
// one waits for it, and who asks while nobody leads is told so at once.
func ask[T any](ctx context.Context, question func(context.Context) (T, error)) (T, error) {
	for {
		try, cancel := context.WithTimeout(ctx, tryFor)
		answer, err := question(try)
		cancel()
		switch {
		case ctx.Err() != nil:
			return answer, err
		case leaderless(err):
			if err := pause(ctx, 20*time.Millisecond, 60*time.Millisecond); err != nil {
				return answer, err
			}
		case !errors.Is(err, context.DeadlineExceeded):
			return answer, err
		}
	}
}

// leaderGet asks the stream's leader, past the direct gets that any replica answers.
func (l *Log) leaderGet(ctx context.Context, query map[string]any) (Entry, error) {
	body, err := json.Marshal(query)
	if err != nil {
		return Entry{}, err
	}
	e, err := ask(ctx, func(try context.Context) (Entry, error) {
		reply, err := l.nc.RequestWithContext(try, "$JS.API.STREAM.MSG.GET."+l.name, body)
		if err != nil {
			return Entry{}, err
		}
		return entryIn(reply.Data)
	})
	var api *jetstream.APIError
	switch {
	case err == nil, errors.Is(err, ErrNotFound):
		l.saw(e.Sequence)
		return e, err
	case errors.As(err, &api) && api.ErrorCode == codeStreamNotFound:
		return Entry{}, fmt.Errorf("eventlog: stream %s is gone: %w", l.name, err)
	}
	return Entry{}, fmt.Errorf("eventlog: read %s from its leader: %w", l.name, err)
}

// entryIn reads the answer of a stream's leader. ErrNotFound where there is no such message.
func entryIn(answer []byte) (Entry, error) {
	var a struct {
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Hdrs    []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return Entry{}, err
	}
	switch {
	case a.Error != nil && a.Error.ErrorCode == codeNoMessage:
		return Entry{}, ErrNotFound
	case a.Error != nil:
		return Entry{}, a.Error
	case a.Message == nil:
		return Entry{}, ErrNotFound
	}
	m, header := a.Message, nats.Header{}
	if len(m.Hdrs) > 0 {
		var err error
		if header, err = nats.DecodeHeadersMsg(m.Hdrs); err != nil {
			return Entry{}, err
		}
	}
	return Entry{Subject: m.Subject, Sequence: m.Seq, Header: header, Data: m.Data, Time: m.Time}, nil
}

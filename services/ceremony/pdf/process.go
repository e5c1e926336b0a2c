package pdf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

var (
	errLimit = errors.New("pdf: helper reached its limit")
	errCrash = errors.New("pdf: helper ended unexpectedly")
)

// process is one running helper. It does one job at a time.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	ended sync.Once
	code  int
}

// startProcess runs this binary again as a helper, with nothing of the service's environment.
func startProcess(cacheDir string, stderr io.Writer) (*process, error) {
	path, err := self()
	if err != nil {
		return nil, fmt.Errorf("pdf: find own binary: %w", err)
	}
	cmd := exec.Command(path) //nolint:noctx // it outlives the job that starts it; the sandbox ends it
	cmd.Args = []string{"countersign-pdf"}
	cmd.Dir = os.TempDir()
	cmd.Env = []string{helperVariable + "=" + helperName, cacheVariable + "=" + cacheDir, "GOMAXPROCS=2", "GOTRACEBACK=single"}
	cmd.Stderr = stderr
	cmd.SysProcAttr = isolate()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("pdf: start helper: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("pdf: start helper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("pdf: start helper: %w", err)
	}
	return &process{cmd: cmd, in: in, out: bufio.NewReaderSize(out, 64<<10)}, nil
}

// self is the binary that runs now, even if another has been installed in its place since.
func self() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}

// call does one job. After any error the process has ended: errLimit (time or memory), errCrash, ctx's or stop's.
func (p *process) call(ctx, stop context.Context, limit time.Duration, req request, body []byte) (response, error) {
	type answer struct {
		res response
		err error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		if a.err = writeMessage(p.in, req, body); a.err == nil {
			a.res.body, a.err = readMessage(p.out, &a.res)
		}
		done <- a
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case a := <-done:
		if a.err == nil {
			return a.res, nil
		}
		if code := p.end(patience); code == exitTime || code == exitMemory {
			return response{}, errLimit
		}
		return response{}, fmt.Errorf("%w: %w", errCrash, a.err)
	case <-timer.C:
		p.end(0)
		<-done
		return response{}, errLimit
	case <-ctx.Done():
		p.end(0)
		<-done
		return response{}, ctx.Err()
	case <-stop.Done():
		p.end(0)
		<-done
		return response{}, ErrClosed
	}
}

// patience is how long a process whose output has ended may take to leave, so that its exit code says why.
const patience = 200 * time.Millisecond

// end kills the process unless it leaves by itself within wait, and returns its exit code, -1 if a signal ended it.
// It may be called again. With a wait, nothing else may be reading from the process.
func (p *process) end(wait time.Duration) int {
	p.ended.Do(func() {
		_ = p.in.Close()
		if wait == 0 || !p.leaves(wait) {
			_ = p.cmd.Process.Kill()
		}
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
	})
	return p.code
}

func (p *process) leaves(wait time.Duration) bool {
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, p.out)
		close(gone)
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-gone:
		return true
	case <-timer.C:
		return false
	}
}

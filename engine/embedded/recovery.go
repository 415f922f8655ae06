package embedded

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
)

// Names of files inside the server's directory. The settings of a stream or
// consumer and their checksum are two files, each replaced whole, one after
// the other; a kill can fall between.
const (
	metaFile    = "meta.inf"
	metaSum     = "meta.sum"
	messagesDir = "msgs"
	consumerDir = "obs"
)

func streamsDir(dir string) string {
	return filepath.Join(dir, "jetstream", appAccount, "streams")
}

// recoverDir puts right what a kill between two files left, and returns the names
// of the streams that are to come back.
//
// A creation cut short is removed: nobody was told that the stream or consumer
// exists. The server would pass over it at every start, and go on to do so
// when it has been created again, as it never writes the missing file. A
// change of settings cut short is completed.
func recoverDir(dir string) (streams []string, err error) {
	root := streamsDir(dir)
	names, err := directories(root)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		stream := filepath.Join(root, name)
		if unfinished(stream) && !hasMessages(stream) {
			if err := os.RemoveAll(stream); err != nil {
				return nil, fmt.Errorf("remove unfinished stream: %w", err)
			}
			continue
		}
		streams = append(streams, name)
		if err := completeChange(stream); err != nil {
			return nil, fmt.Errorf("complete the settings of stream %s: %w", name, err)
		}
		consumers, err := directories(filepath.Join(stream, consumerDir))
		if err != nil {
			return nil, err
		}
		for _, c := range consumers {
			consumer := filepath.Join(stream, consumerDir, c)
			if !unfinished(consumer) {
				continue
			}
			if err := os.RemoveAll(consumer); err != nil {
				return nil, fmt.Errorf("remove unfinished consumer: %w", err)
			}
		}
	}
	return streams, nil
}

// completeChange writes the checksum of settings that were replaced after it
// was written.
func completeChange(stream string) error {
	text, ok := changedSettings(stream)
	if !ok {
		return nil
	}
	sum := filepath.Join(stream, metaSum)
	want, err := metaChecksum(filepath.Base(stream), text)
	if err != nil {
		return err
	}
	if has, err := os.ReadFile(sum); err == nil && string(has) == want {
		return nil
	}
	return replaceFile(sum, want)
}

// changedSettings are a stream's settings if they are younger than their
// checksum and make sense. Anything else is whole, or damage left for verify.
func changedSettings(stream string) (text []byte, ok bool) {
	path := filepath.Join(stream, metaFile)
	written, err := os.Stat(path)
	if err != nil {
		return nil, false
	}
	summed, err := os.Stat(filepath.Join(stream, metaSum))
	if err != nil || !written.ModTime().After(summed.ModTime()) {
		return nil, false
	}
	if text, err = os.ReadFile(path); err != nil {
		return nil, false
	}
	var info server.FileStreamInfo
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	return text, strict.Decode(&info) == nil && info.Name == filepath.Base(stream)
}

// metaChecksum is the server's: HighwayHash-64 keyed by SHA-256 of the name.
func metaChecksum(name string, text []byte) (string, error) {
	key := sha256.Sum256([]byte(name))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		return "", err
	}
	_, err = h.Write(text)
	return hex.EncodeToString(h.Sum(nil)), err
}

func replaceFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// directories in dir, without those the server has marked as deleted.
func directories(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read engine directory: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// unfinished is a directory without both files. An unreadable file isn't a
// missing one.
func unfinished(dir string) bool {
	for _, name := range []string{metaFile, metaSum} {
		if _, err := os.Lstat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// hasMessages is true in case of doubt.
func hasMessages(stream string) bool {
	entries, err := os.ReadDir(filepath.Join(stream, messagesDir))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() > 0 {
			return true
		}
	}
	return false
}

// blocks are the files with the messages of the streams named.
func blocks(dir string, streams []string) map[string]os.FileInfo {
	found := map[string]os.FileInfo{}
	for _, stream := range streams {
		for path := range files(filepath.Join(streamsDir(dir), stream, messagesDir)) {
			if info, err := os.Lstat(path); err == nil && filepath.Ext(path) == ".blk" {
				found[path] = info
			}
		}
	}
	return found
}

// cutOff tells how many bytes each stream's blocks are shorter than they were.
// The server cuts off a block where it can't read on, and says nothing of it. A
// block it rewrote, to free space, is another file.
func cutOff(before map[string]os.FileInfo) map[string]int64 {
	lost := map[string]int64{}
	for path, was := range before {
		if is, err := os.Lstat(path); err == nil && os.SameFile(was, is) && is.Size() < was.Size() {
			lost[filepath.Base(filepath.Dir(filepath.Dir(path)))] += was.Size() - is.Size()
		}
	}
	return lost
}

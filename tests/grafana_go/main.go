// The Go client that Grafana's ClickHouse plugin is built on, opened as the plugin opens it (pkg/plugin/driver.go,
// buildClickHouseOptions): HTTP, gzip. Reads a job as JSON from standard input, and answers in JSON, a result a query.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

type job struct {
	Address  string   `json:"address"`
	User     string   `json:"user"`
	Password string   `json:"password"`
	Database string   `json:"database"`
	Queries  []string `json:"queries"`
}

type result struct {
	Columns []string   `json:"columns"`
	Types   []string   `json:"types"`
	Rows    [][]string `json:"rows"`
	Error   string     `json:"error"`
}

func main() {
	var asked job
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	db := clickhouse.OpenDB(&clickhouse.Options{
		Addr:        []string{asked.Address},
		Auth:        clickhouse.Auth{Database: asked.Database, Username: asked.User, Password: asked.Password},
		ClientInfo:  clickhouse.ClientInfo{Products: []struct{ Name, Version string }{{"grafana", "13.2.3"}, {"clickhouse-datasource", "4.20.0"}}},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionGZIP},
		DialTimeout: 10 * time.Second,
		Protocol:    clickhouse.HTTP,
		ReadTimeout: 60 * time.Second,
		Settings:    clickhouse.Settings{},
	})
	defer db.Close()
	ctx := context.Background()
	results := []result{}
	if err := db.PingContext(ctx); err != nil {
		results = append(results, result{Error: err.Error()})
		asked.Queries = nil
	}
	for _, query := range asked.Queries {
		rows, err := db.QueryContext(ctx, query)
		if err != nil {
			results = append(results, result{Error: err.Error()})
			continue
		}
		made := result{}
		made.Columns, _ = rows.Columns()
		types, _ := rows.ColumnTypes()
		for _, each := range types {
			made.Types = append(made.Types, each.DatabaseTypeName())
		}
		for rows.Next() {
			values := make([]any, len(made.Columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				made.Error = err.Error()
				break
			}
			row := make([]string, len(values))
			for i, value := range values {
				row[i] = fmt.Sprint(*(value.(*any)))
			}
			made.Rows = append(made.Rows, row)
		}
		if err := rows.Err(); err != nil {
			made.Error = err.Error()
		}
		rows.Close()
		results = append(results, made)
	}
	json.NewEncoder(os.Stdout).Encode(results)
}

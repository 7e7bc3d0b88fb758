# Name your connection to the warehouse here: its Postgres, or Amazon Redshift.
connection: "tidemark_warehouse"
label: "Tidemark"

include: "*.view.lkml"

explore: hourly_volume {
  label: "Volume"
  description: "Transactions and settled amounts by hour, as of the last refresh. Choose one asset before you add amounts."
}

explore: alerts {
  label: "Alerts and cases"
  join: case_events {
    relationship: one_to_many
    sql_on: ${alerts.case_id} = ${case_events.case_id} ;;
  }
}

explore: scored_transactions {
  label: "Transactions with scores"
  description: "One row a revision of a transaction, with its latest score. Ranks every score there is: filter by time, and expect to wait."
  always_filter: {
    filters: [scored_transactions.occurred_date: "7 days", scored_transactions.is_void: "no"]
  }
}

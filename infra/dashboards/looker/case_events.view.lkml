view: case_events {
  sql_table_name: warehouse.fact_case_event ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    sql: CAST(${TABLE}.log_partition AS VARCHAR) || '/' || CAST(${TABLE}.log_offset AS VARCHAR) ;;
  }
  dimension: case_id {
    type: string
    sql: ${TABLE}.case_id ;;
  }
  dimension: event_type {
    description: "CaseOpened, CaseAssigned, VerdictReached or CaseClosed."
    type: string
    sql: ${TABLE}.event_type ;;
  }
  dimension: verdict {
    type: string
    sql: ${TABLE}.verdict ;;
  }
  dimension: assignee {
    type: string
    sql: ${TABLE}.assignee ;;
  }
  dimension: actor {
    type: string
    sql: ${TABLE}.actor ;;
  }
  dimension_group: known {
    type: time
    timeframes: [raw, time, hour, date, week, month, quarter, year]
    sql: ${TABLE}.known_at ;;
  }
  measure: cases {
    type: count_distinct
    sql: ${TABLE}.case_id ;;
  }
  measure: decided_cases {
    type: count_distinct
    sql: CASE WHEN ${TABLE}.event_type = 'VerdictReached' THEN ${TABLE}.case_id END ;;
  }
}

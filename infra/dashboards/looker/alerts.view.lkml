view: alerts {
  sql_table_name: warehouse.fact_alert ;;

  dimension: case_id {
    primary_key: yes
    type: string
    sql: ${TABLE}.case_id ;;
  }
  dimension: wallet_id {
    type: string
    sql: ${TABLE}.wallet_id ;;
  }
  dimension: reason {
    type: string
    sql: ${TABLE}.reason ;;
  }
  dimension: explanation {
    type: string
    sql: ${TABLE}.explanation ;;
  }
  dimension: model_version {
    type: string
    sql: ${TABLE}.model_version ;;
  }
  dimension: score {
    type: number
    value_format_name: decimal_3
    sql: ${TABLE}.score ;;
  }
  dimension_group: known {
    type: time
    timeframes: [raw, time, hour, date, week, month, quarter, year]
    sql: ${TABLE}.known_at ;;
  }
  measure: count {
    type: count
    drill_fields: [case_id, wallet_id, score, reason, known_time]
  }
  measure: wallets {
    type: count_distinct
    sql: ${TABLE}.wallet_id ;;
  }
  measure: highest_score {
    type: max
    value_format_name: decimal_3
    sql: ${TABLE}.score ;;
  }
}
